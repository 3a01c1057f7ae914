"""The loop of decoding: step after step, each with what the one before it left, until all texts have ended.

Compiled as a whole it keeps what it writes to itself until the end; run by Python it shows each token as it comes.
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
  """Takes steps as long as a text goes on.

  Args:
    step: (number of the step, from 0; carry) -> carry.
    carry: what the first step reads: a token of each text, the model's state behind those before it, and the like.
    n_tokens: steps at most.
    unfinished: carry -> whether there is a text that has not ended.
    run: `jax.lax.while_loop`, or `one_by_one`.

  Returns:
    What `run` does: the steps that were taken and the last carry, or an iterator of the same after each step.
  """
  return run(
    lambda numbered: (numbered[0] < n_tokens) & unfinished(numbered[1]),
    lambda numbered: (numbered[0] + 1, step(*numbered)),
    (0, carry),
  )


def one_by_one(condition: Callable[[Carry], bool], advance: Callable[[Carry], Carry], carry: Carry) -> Iterator[Carry]:
  """As `jax.lax.while_loop`, run by Python: what each step makes of `carry`."""
  while condition(carry):
    carry = advance(carry)
    yield carry
