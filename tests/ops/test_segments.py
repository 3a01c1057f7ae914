"""B 2 rows of T 7 tokens in up to three segments; S 4 source tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.segments import (
  Interleaved,
  Segments,
  in_same_segment,
  positions_within,
  segment_starts,
  taps_within,
)

SEGMENT_BXT = jnp.asarray([[1, 1, 1, 2, 3, 3, 0], [1, 2, 2, 0, 0, 0, 0]])


def test_positions_count_from_zero_in_every_segment():
  assert positions_within(SEGMENT_BXT)[:, :6].tolist() == [[0, 1, 2, 0, 0, 1], [0, 0, 1, 0, 1, 2]]
  np.testing.assert_array_equal(segment_starts(SEGMENT_BXT), positions_within(SEGMENT_BXT) == 0)


@pytest.mark.parametrize('width', [1, 2, 4])
def test_taps_are_the_last_vectors_of_the_segment(width):
  x_BxTxD = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
  expected_BxTxCxD = np.zeros((2, 7, width, 3), np.float32)
  for b, t, c in np.ndindex(2, 7, width):
    seen = t - (width - 1) + c
    if seen >= 0 and SEGMENT_BXT[b, seen] == SEGMENT_BXT[b, t]:
      expected_BxTxCxD[b, t, c] = x_BxTxD[b, seen]
  np.testing.assert_array_equal(taps_within(jnp.asarray(x_BxTxD), SEGMENT_BXT, width), expected_BxTxCxD)


def test_queries_match_only_the_keys_of_their_segment():
  key_segment_BxK = jnp.asarray([[1, 2, 3, 0], [2, 2, 0, 0]])
  found_BxCxK = in_same_segment(SEGMENT_BXT, key_segment_BxK, jnp.asarray([2, 3]))
  assert found_BxCxK.astype(int).tolist() == [[[1, 0, 0, 0], [0, 1, 0, 0]], [[1, 1, 0, 0], [0, 0, 1, 1]]]


def test_targets_follow_their_sources_and_are_read_back():
  # The second example of the first row has no source; that of the second row has no target.
  inputs_BxS = jnp.asarray([[1, 1, 3, 0], [1, 1, 2, 2]])
  targets_BxT = jnp.asarray([[1, 2, 2, 3, 0], [1, 0, 0, 0, 0]])
  one = Interleaved(Segments(inputs_BxS, targets_BxT))
  sources_BxSx1, written_BxTx1 = jnp.arange(8).reshape(2, 4, 1), jnp.arange(10, 20).reshape(2, 5, 1)
  both_BxP = one.write(sources_BxSx1, written_BxTx1)[..., 0]
  assert both_BxP.tolist() == [[0, 1, 10, 11, 12, 2, 13, 3, 14], [4, 5, 15, 6, 7, 16, 17, 18, 19]]
  assert one.segment_BxP.tolist() == [[1, 1, 1, 2, 2, 3, 3, 0, 0], [1, 1, 1, 2, 2, 0, 0, 0, 0]]
  np.testing.assert_array_equal(one.read(both_BxP[..., None]), written_BxTx1)
