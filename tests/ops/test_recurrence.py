"""B 2 examples, W 5 wide; lengths below and above the scan's unrolling by 8."""

import jax
import numpy as np
import pytest

from terraformer.ops.recurrence import linear_recurrence


def _inputs(seed, time):
  rng = np.random.default_rng(seed)
  forget_BxTxW = rng.random((2, time, 5)).astype(np.float32)
  return forget_BxTxW, rng.normal(size=(2, time, 5)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)


@pytest.mark.parametrize('time', [1, 7, 17])
@pytest.mark.parametrize('seed', range(3))
def test_states_equal_those_of_a_loop(seed, time):
  forget_BxTxW, update_BxTxW, state_BxW = inputs = _inputs(seed, time)
  expected = []
  for t in range(time):
    state_BxW = forget_BxTxW[:, t] * state_BxW + (1 - forget_BxTxW[:, t]) * update_BxTxW[:, t]
    expected.append(state_BxW)
  np.testing.assert_allclose(linear_recurrence(*inputs), np.stack(expected, 1), atol=1e-6)


def test_states_are_reset_at_starts():
  forget_BxTxW, update_BxTxW, initial_BxW = _inputs(0, 11)
  start_BxT = np.arange(11) == np.asarray([[0], [6]])
  found_BxTxW = linear_recurrence(forget_BxTxW, update_BxTxW, initial_BxW, start_BxT)
  for row, first in enumerate((0, 6)):
    alone_BxTxW = linear_recurrence(forget_BxTxW[:, first:], update_BxTxW[:, first:], np.zeros_like(initial_BxW))
    np.testing.assert_allclose(found_BxTxW[row, first:], alone_BxTxW[row], atol=1e-6)
  np.testing.assert_allclose(found_BxTxW[1, :6], linear_recurrence(*_inputs(0, 11))[1, :6], atol=1e-6)


def test_the_gradient_flows_only_backward_in_time():
  forget_BxTxW, update_BxTxW, initial_BxW = _inputs(0, 9)
  read_fourth = lambda update: linear_recurrence(forget_BxTxW, update, initial_BxW)[:, 3].sum()  # noqa: E731
  d_update_BxTxW = np.asarray(jax.grad(read_fourth)(update_BxTxW))
  np.testing.assert_array_equal((d_update_BxTxW != 0).all((0, 2)), np.arange(9) <= 3)
