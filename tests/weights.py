"""Modules with random weights, none at a value (0, 1, 1e-6) that would hide its absence."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.ops.cache_slots import FilledSlots, prompt_slots

Module = TypeVar('Module')


def shapes(make: Callable[..., Module]) -> Module:
  """Returns the result of `make(key=...)` with shapes instead of arrays; nothing is computed or compiled."""
  return jax.eval_shape(lambda key: make(key=key), jax.random.key(0))


def filled(module: Module, seed: int, scale: float = 0.2) -> Module:
  """Returns a module of the same structure with weights N(0, scale); scales of normalizations have mean 1."""
  rng = np.random.default_rng(seed)

  def sample(path, leaf):
    mean = 1.0 if 'scale_D' in jax.tree_util.keystr(path) else 0.0
    return jnp.asarray(rng.normal(mean, scale, leaf.shape), jnp.float32)

  return jax.tree_util.tree_map_with_path(sample, module)


def build(make: Callable[..., Module], seed: int = 0) -> Module:
  """Returns `make(key=...)` with random weights."""
  return filled(shapes(make), seed)


@jax.jit
def call(module, *args, **kwargs):
  """Returns `module(*args, **kwargs)`, compiled once for all seeds."""
  return module(*args, **kwargs)


@jax.jit
def step(module, *args):
  """Returns `module.step(*args)`, compiled once for all positions and seeds."""
  return module.step(*args)


def nothing_filled(batch: int) -> FilledSlots:
  """Returns the filled slots of an empty cache."""
  return prompt_slots(jnp.zeros(batch, jnp.int32), 0)


def steps(layer, x_BxTxD, cache, filled: FilledSlots):
  """Applies `layer.step` position by position, from a cache and its filled slots; returns BxTxD and the new cache."""

  def advance(carry, x_BxD):
    cache, filled = carry
    y_BxD, cache = layer.step(x_BxD, cache, filled)
    return (cache, filled.advanced()), y_BxD

  (cache, _), y_TxBxD = jax.lax.scan(advance, (cache, filled), x_BxTxD.swapaxes(0, 1))
  return y_TxBxD.swapaxes(0, 1), cache
