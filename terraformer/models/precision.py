"""Computing in bfloat16 with parameters that stay float32."""

from typing import TypeVar

import jax
import jax.numpy as jnp

Module = TypeVar('Module')


def in_dtype(module: Module, dtype: jnp.dtype) -> Module:
  """The module with its float32 arrays converted to `dtype`; itself where that is float32."""
  if dtype == jnp.float32:
    return module
  return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == jnp.float32 else x, module)
