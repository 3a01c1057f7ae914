"""Sharding constraints tell the compiler how to divide arrays between devices; without a mesh they do nothing."""

import functools

import jax
from jax.sharding import PartitionSpec as P

BATCH_AXES = ('data', 'fsdp')
# Parameter dimensions that are sharded in storage and gathered for computation.
_GATHERED = {'embed', 'rank'}


def split_by_example(x_Bx: jax.Array) -> jax.Array:
  """Returns `x` with its first axis sharded over the mesh's batch axes and all others whole.

  Returns `x` unchanged without a mesh, or if the batch axes do not divide it evenly.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or x_Bx.shape[0] % (mesh.shape['data'] * mesh.shape['fsdp']):
    return x_Bx
  return jax.lax.with_sharding_constraint(x_Bx, P(BATCH_AXES, *[None] * (x_Bx.ndim - 1)))


def split_by_head(x_BxTxHxK: jax.Array) -> jax.Array:
  """Returns queries, keys or values with their heads sharded over the mesh's `model` axis, if it divides them evenly.

  The results of sparse projections are whole on every device; without this, each device would attend with all heads.
  """
  mesh = jax.sharding.get_abstract_mesh()
  batch, _, n_heads, _ = x_BxTxHxK.shape
  if mesh.empty or batch % (mesh.shape['data'] * mesh.shape['fsdp']) or n_heads % mesh.shape['model']:
    return x_BxTxHxK
  return jax.lax.with_sharding_constraint(x_BxTxHxK, P(BATCH_AXES, None, 'model', None))


def split_microbatches(x_Bx: jax.Array, n_parts: int) -> jax.Array:
  """Returns a batch as A = `n_parts` microbatches, A x B/A x ..., each sharded like the whole batch.

  Every device keeps its own examples: microbatch a holds every A-th example, starting with number a.
  """
  x_PxAx = x_Bx.reshape(-1, n_parts, *x_Bx.shape[1:])
  x_AxPx = x_PxAx.swapaxes(0, 1)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or x_AxPx.shape[1] % (mesh.shape['data'] * mesh.shape['fsdp']):
    return x_AxPx
  return jax.lax.with_sharding_constraint(x_AxPx, P(None, BATCH_AXES, *[None] * (x_AxPx.ndim - 2)))


def join_microbatches(x_AxPx: jax.Array) -> jax.Array:
  """Returns the batch; the inverse of `split_microbatches`."""
  return x_AxPx.swapaxes(0, 1).reshape(-1, *x_AxPx.shape[2:])


def gather(weight: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
  """Returns a parameter with its `embed` and `rank` dimensions whole on every device; unchanged without a mesh.

  Otherwise the compiler would contract over a sharded d_model and communicate activations instead of weights.
  The gradient has no such constraint, so it is summed and sharded in one operation (a reduce-scatter).

  Args:
    weight: a parameter of one layer.
    axes: names of its dimensions.
  """
  if jax.sharding.get_abstract_mesh().empty or not _GATHERED & set(axes):
    return weight
  return _gather(weight, P(*(None if name in _GATHERED else P.UNCONSTRAINED for name in axes)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(weight: jax.Array, spec: P) -> jax.Array:
  return jax.lax.with_sharding_constraint(weight, spec)


_gather.defvjp(lambda weight, spec: (_gather(weight, spec), None), lambda spec, _, gradient: (gradient,))
