"""B 4 examples, S 5 source positions, T 3 target positions, D 7 (odd)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.positions import (
  check_length,
  example_positions,
  last_positions,
  read_after,
  shift_right,
  sinusoids,
  write_after,
)
from tests.reference.vectors import TOLERANCE, load

N_FIRST = np.asarray([0, 3, 5, 1])


def _sequences(seed):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(4, 5, 7)).astype(np.float32), rng.normal(size=(4, 3, 7)).astype(np.float32)


def _slow_sinusoid(position, column):
  return (math.cos if column % 2 else math.sin)(position / 1e4 ** (column // 2 * 2 / 7))


@pytest.mark.parametrize('first', [0, 1020, 1_000_000, 123_456_789])
def test_sinusoids_alternate_sines_and_cosines(first):
  # The rounding error of an angle grows by at most half of 2^-32 turns per 1024 positions.
  position_T = first + np.arange(9)
  slow_TxD = [[_slow_sinusoid(position, column) for column in range(7)] for position in position_T]
  tolerance = 2e-6 + math.pi / 2**32 / 1024 * first
  np.testing.assert_allclose(jax.jit(sinusoids, static_argnums=1)(position_T, 7), slow_TxD, atol=tolerance)


def test_sinusoids_agree_with_the_reference():
  expected_PxD = load('layernorm_positional')['pos_initial_table']
  n_positions, d_model = expected_PxD.shape
  np.testing.assert_allclose(sinusoids(jnp.arange(n_positions), d_model), expected_PxD, atol=TOLERANCE)


def test_sinusoids_take_positions_of_any_shape():
  position_BxT = jnp.asarray([[3, 1], [4, 1], [5, 9]])
  np.testing.assert_array_equal(sinusoids(position_BxT, 7)[2, 1], sinusoids(jnp.asarray([9]), 7)[0])


def _starts(n_starts, start_from_zero):
  return np.asarray(example_positions(2000, 3, n_starts, start_from_zero, key=jax.random.key(0)))[:, 0]


def test_without_a_key_all_examples_start_at_zero():
  np.testing.assert_array_equal(example_positions(4, 3, 10, 0.0, key=None), [[0, 1, 2]])


def test_positions_follow_the_start():
  position_BxT = np.asarray(example_positions(50, 4, 10, 0.0, key=jax.random.key(0)))
  np.testing.assert_array_equal(position_BxT - position_BxT[:, :1], np.tile(np.arange(4), (50, 1)))


def test_starts_are_uniform_below_their_number():
  # 2,000 samples: 0.036 is four standard deviations.
  np.testing.assert_allclose(np.bincount(_starts(5, 0.0)) / 2000, [0.2] * 5, atol=0.036)


def test_a_share_of_the_examples_starts_at_zero_nevertheless():
  # 2,000 samples: 0.041 is four standard deviations.
  assert abs((_starts(10**6, 0.3) == 0).mean() - 0.3) < 0.041


def test_every_segment_of_a_packed_row_has_its_own_start():
  segment_BxT = jnp.repeat(jnp.arange(1, 21), 3)[None]
  position_BxT = example_positions(1, 60, 50, 0.0, key=jax.random.key(0), segment_BxT=segment_BxT)
  position_20x3 = np.asarray(position_BxT).reshape(20, 3)
  np.testing.assert_array_equal(position_20x3 - position_20x3[:, :1], np.tile(np.arange(3), (20, 1)))
  assert len(set(position_20x3[:, 0])) > 10


@pytest.mark.parametrize('n_starts', [1, 0, -3])
def test_without_room_for_other_starts_all_examples_start_at_zero(n_starts):
  assert not _starts(n_starts, 0.0).any()


def test_more_tokens_than_positions_are_refused():
  with pytest.raises(ValueError, match='a sequence of 10 tokens is longer than the 9 positions'):
    check_length(10, 9)


def test_shifted_tokens_start_with_zero_and_lose_the_last():
  np.testing.assert_array_equal(shift_right(jnp.asarray([[5, 6, 7], [8, 9, 0]])), [[0, 5, 6], [0, 8, 9]])


def test_shifted_tokens_start_with_zero_in_every_segment():
  shifted_BxT = shift_right(jnp.asarray([[5, 6, 7, 8, 9]]), jnp.asarray([[1, 1, 2, 3, 3]]))
  np.testing.assert_array_equal(shifted_BxT, [[0, 5, 0, 0, 8]])


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
def test_concatenation_agrees_with_the_reference(stream):
  # After the second sequence, the reference has encoder padding and we have zeros; these positions are not compared.
  r = load('concat_with_padding')
  n_first_B = (r['tok_e'] != 0).sum(1)
  both_BxPxD = write_after(r[f'vec_e{stream}'], n_first_B, r['vec_d'])
  for b, end in enumerate(n_first_B + r['vec_d'].shape[1]):
    np.testing.assert_array_equal(both_BxPxD[b, :end], r[f'vec_ed{stream}'][b, :end])


def test_stripping_agrees_with_the_reference():
  r = load('concat_with_padding')
  n_first_B = (r['tok_e'] != 0).sum(1)
  np.testing.assert_array_equal(read_after(r['vec_ed1'], n_first_B, r['vec_d'].shape[1]), r['stripped'])


@pytest.mark.parametrize('width', [0, 1, 2, 6])
def test_last_positions_end_at_the_length_and_follow_zeros(width):
  x_BxTxD, _ = _sequences(0)
  padded = np.concatenate([np.zeros((4, width, 7), np.float32), x_BxTxD], axis=1)
  expected = np.stack([padded[b, n : n + width] for b, n in enumerate(N_FIRST)])
  np.testing.assert_array_equal(last_positions(x_BxTxD, N_FIRST, width), expected)
