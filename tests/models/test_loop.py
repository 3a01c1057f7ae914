"""Both ways to run the loop; the carry is a running total and the number of steps."""

import jax.numpy as jnp
import pytest

from terraformer.models.loop import decode_loop, one_by_one


def _step(index, carry):
  total, _ = carry
  return total + index, index + 1


START = jnp.int32(0), jnp.int32(0)


# The maximum number of steps, the total that ends the loop, and the last carry; 0 + 1 + 2 + 3 is 6.
@pytest.mark.parametrize(('n_tokens', 'enough', 'expected'), [(4, 99, (6, 4)), (9, 6, (6, 4)), (0, 99, (0, 0))])
def test_both_ways_take_the_same_steps(n_tokens, enough, expected):
  unfinished = lambda carry: carry[0] < enough  # noqa: E731
  n_steps, compiled = decode_loop(_step, START, n_tokens, unfinished)
  shown = [*decode_loop(_step, START, n_tokens, unfinished, one_by_one)]
  assert tuple(map(int, compiled)) == expected and int(n_steps) == expected[1]
  assert [number for number, _ in shown] == list(range(1, expected[1] + 1))
  assert not shown or tuple(map(int, shown[-1][1])) == expected


def test_python_takes_a_step_only_when_its_result_is_requested():
  taken = []
  steps = decode_loop(lambda index, _: taken.append(index), None, 5, run=one_by_one)
  next(steps), next(steps)
  assert taken == [0, 1]
