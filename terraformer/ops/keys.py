"""Keys of random numbers, where no key means evaluation."""

import jax


def split_key(key: jax.Array | None, count: int) -> tuple[jax.Array | None, ...]:
  """`count` keys, or as many Nones in evaluation."""
  return (None,) * count if key is None else tuple(jax.random.split(key, count))


def fold_key(key: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
  """The key of one of several parts, by its number; None in evaluation."""
  return None if key is None else jax.random.fold_in(key, number)
