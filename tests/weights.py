"""Modules with weights of any seed, none of them at a value (0, 1, 1e-6) that would hide its absence."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.ops.cache_slots import FilledSlots, prompt_slots

Module = TypeVar('Module')


def shapes(make: Callable[..., Module]) -> Module:
  """What `make(key=...)` returns, with shapes for arrays; nothing is computed or compiled."""
  return jax.eval_shape(lambda key: make(key=key), jax.random.key(0))


def filled(module: Module, seed: int, scale: float = 0.2) -> Module:
  """A module of the same structure with weights N(0, scale), those of a normalisation's scale around 1."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    mean = 1.0 if 'scale_D' in jax.tree_util.keystr(path) else 0.0
    return jnp.asarray(rng.normal(mean, scale, leaf.shape), jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, module)


def build(make: Callable[..., Module], seed: int = 0) -> Module:
  """`make(key=...)`, filled."""
  return filled(shapes(make), seed)


@jax.jit
def call(module, *args, **kwargs):
  """`module(*args, **kwargs)`, compiled once for all seeds."""
  return module(*args, **kwargs)


@jax.jit
def step(module, *args):
  """`module.step(*args)`, compiled once for all positions and seeds."""
  return module.step(*args)


def nothing_filled(batch: int) -> FilledSlots:
  """The places of an empty cache."""
  return prompt_slots(jnp.zeros(batch, jnp.int32), 0)


def steps(layer, x_BxTxD, cache, filled: FilledSlots):
  """`layer.step` position by position, from a cache and its filled places on: BxTxD, and the cache after them."""

  def advance(carry, x_BxD):
    cache, filled = carry
    y_BxD, cache = layer.step(x_BxD, cache, filled)
    return (cache, filled.advanced()), y_BxD

  (cache, _), y_TxBxD = jax.lax.scan(advance, (cache, filled), x_BxTxD.swapaxes(0, 1))
  return y_TxBxD.swapaxes(0, 1), cache
