"""The decoding loop: each step reads the result of the previous one, until all texts have ended.

A compiled loop returns its result at the end; a loop run by Python yields every token as soon as it is computed.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

Carry = TypeVar('Carry')
Numbered = tuple[int | jax.Array, Carry]


def decode_loop(
  step: Callable[[int | jax.Array, Carry], Carry],
  carry: Carry,
  n_tokens: int,
  unfinished: Callable[[Carry], bool | jax.Array] = lambda _: True,
  run: Callable[[Callable[[Numbered], Any], Callable[[Numbered], Numbered], Numbered], Any] = jax.lax.while_loop,
) -> Any:
  """Takes steps until all texts have ended.

  Args:
    step: (number of the step from 0, carry) -> carry.
    carry: input of the first step, such as a token of each text and the model's state before it.
    n_tokens: maximum number of steps.
    unfinished: carry -> whether any text has not ended.
    run: `jax.lax.while_loop`, or `one_by_one`.

  Returns:
    The result of `run`: (number of steps taken, last carry), or an iterator of such pairs after each step.
  """
  return run(
    lambda numbered: (numbered[0] < n_tokens) & unfinished(numbered[1]),
    lambda numbered: (numbered[0] + 1, step(*numbered)),
    (0, carry),
  )


def one_by_one(condition: Callable[[Carry], bool], advance: Callable[[Carry], Carry], carry: Carry) -> Iterator[Carry]:
  """Runs `jax.lax.while_loop` in Python and yields the carry after each step."""
  while condition(carry):
    carry = advance(carry)
    yield carry
