"""B 4 examples, S 5 source positions, T 3 target positions, D 7 (odd)."""

import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.positions import last_positions, read_after, shift_right, sinusoid_table, write_after
from tests.reference.vectors import TOLERANCE, load

N_FIRST = np.asarray([0, 3, 5, 1])


def _sequences(seed):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(4, 5, 7)).astype(np.float32), rng.normal(size=(4, 3, 7)).astype(np.float32)


def test_sinusoids_alternate_sines_and_cosines():
  table_PxD = sinusoid_table(9, 7)
  slow = [
    [(np.cos if column % 2 else np.sin)(position / 1e4 ** (column // 2 * 2 / 7)) for column in range(7)]
    for position in range(9)
  ]
  np.testing.assert_allclose(table_PxD, slow, atol=1e-6)


def test_sinusoids_are_those_of_the_reference():
  expected_PxD = load('layernorm_positional')['pos_initial_table']
  np.testing.assert_allclose(sinusoid_table(*expected_PxD.shape), expected_PxD, atol=TOLERANCE)


def test_shifted_tokens_start_with_zero_and_lose_the_last():
  np.testing.assert_array_equal(shift_right(jnp.asarray([[5, 6, 7], [8, 9, 0]])), [[0, 5, 6], [0, 8, 9]])


@pytest.mark.parametrize('seed', range(3))
def test_the_second_sequence_is_written_after_the_real_part_of_the_first(seed):
  first, second = _sequences(seed)
  expected = np.zeros((4, 8, 7))
  for b, n in enumerate(N_FIRST):
    expected[b, :n] = first[b, :n]
    expected[b, n : n + 3] = second[b]
  np.testing.assert_array_equal(write_after(first, N_FIRST, second), expected)


@pytest.mark.parametrize('seed', range(3))
def test_the_second_sequence_is_read_back(seed):
  first, second = _sequences(seed)
  np.testing.assert_array_equal(read_after(write_after(first, N_FIRST, second), N_FIRST, 3), second)


@pytest.mark.parametrize('stream', ['1', '2'])
def test_concatenation_is_that_of_the_reference(stream):
  # The reference leaves what encoder padding lies beyond the second sequence; here it is zero, and is not compared.
  r = load('concat_with_padding')
  n_first_B = (r['tok_e'] != 0).sum(1)
  both_BxPxD = write_after(r[f'vec_e{stream}'], n_first_B, r['vec_d'])
  for b, end in enumerate(n_first_B + r['vec_d'].shape[1]):
    np.testing.assert_array_equal(both_BxPxD[b, :end], r[f'vec_ed{stream}'][b, :end])


def test_stripping_is_that_of_the_reference():
  r = load('concat_with_padding')
  n_first_B = (r['tok_e'] != 0).sum(1)
  np.testing.assert_array_equal(read_after(r['vec_ed1'], n_first_B, r['vec_d'].shape[1]), r['stripped'])


@pytest.mark.parametrize('width', [0, 1, 2, 6])
def test_last_positions_stand_before_the_length_after_zeros(width):
  x_BxTxD, _ = _sequences(0)
  padded = np.concatenate([np.zeros((4, width, 7), np.float32), x_BxTxD], axis=1)
  expected = np.stack([padded[b, n : n + width] for b, n in enumerate(N_FIRST)])
  np.testing.assert_array_equal(last_positions(x_BxTxD, N_FIRST, width), expected)
