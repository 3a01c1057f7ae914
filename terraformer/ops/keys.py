"""Keys of random numbers, where no key means evaluation."""

import jax


def split_key(key: jax.Array | None, count: int) -> tuple[jax.Array | None, ...]:
  """`count` keys, or as many Nones in evaluation."""
  return (None,) * count if key is None else tuple(jax.random.split(key, count))
