"""Splits and folds random keys; a key of None means evaluation."""

import jax


def split_key(key: jax.Array | None, count: int) -> tuple[jax.Array | None, ...]:
  """Returns `count` keys, or `count` times None in evaluation."""
  return (None,) * count if key is None else tuple(jax.random.split(key, count))


def fold_key(key: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
  """Returns `key` folded with a number (of a layer, a chunk, ...); None in evaluation."""
  return None if key is None else jax.random.fold_in(key, number)
