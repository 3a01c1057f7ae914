"""Hints to the compiler about how arrays are divided between devices; without a mesh they do nothing."""

import functools

import jax
from jax.sharding import PartitionSpec as P

BATCH_AXES = ('data', 'fsdp')
# Dimensions of parameters that are divided where they are kept, and whole where they are used.
_GATHERED = {'embed', 'rank'}


def split_by_example(x_Bx: jax.Array) -> jax.Array:
  """`x`, its first axis divided over the mesh's batch axes and all others whole; `x` itself where no mesh is set."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or x_Bx.shape[0] % (mesh.shape['data'] * mesh.shape['fsdp']):
    return x_Bx
  return jax.lax.with_sharding_constraint(x_Bx, P(BATCH_AXES, *[None] * (x_Bx.ndim - 1)))


def split_by_head(x_BxTxHxK: jax.Array) -> jax.Array:
  """Queries, keys or values, their heads divided over the mesh's `model` axis where it divides them.

  Sparse projections leave them whole on every device, and each would attend with all heads.
  """
  mesh = jax.sharding.get_abstract_mesh()
  batch, _, n_heads, _ = x_BxTxHxK.shape
  if mesh.empty or batch % (mesh.shape['data'] * mesh.shape['fsdp']) or n_heads % mesh.shape['model']:
    return x_BxTxHxK
  return jax.lax.with_sharding_constraint(x_BxTxHxK, P(BATCH_AXES, None, 'model', None))


def split_microbatches(x_Bx: jax.Array, n_parts: int) -> jax.Array:
  """`n_parts` parts of a batch behind each other, A x B/A x ..., each divided between devices as the whole batch is.

  Every device keeps its own examples: part a holds every n_parts-th, from a.
  """
  x_PxAx = x_Bx.reshape(-1, n_parts, *x_Bx.shape[1:])
  x_AxPx = x_PxAx.swapaxes(0, 1)
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or x_AxPx.shape[1] % (mesh.shape['data'] * mesh.shape['fsdp']):
    return x_AxPx
  return jax.lax.with_sharding_constraint(x_AxPx, P(None, BATCH_AXES, *[None] * (x_AxPx.ndim - 2)))


def join_microbatches(x_AxPx: jax.Array) -> jax.Array:
  """The batch that `split_microbatches` split."""
  return x_AxPx.swapaxes(0, 1).reshape(-1, *x_AxPx.shape[2:])


def gather(weight: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
  """A parameter, its `embed` and `rank` dimensions whole on every device; `weight` itself where no mesh is set.

  Left to itself the compiler contracts over a divided d_model, and sends activations around in the place of weights.
  The gradient is not asked to be whole: it is summed and divided in one go.

  Args:
    weight: of one layer.
    axes: names of its dimensions.
  """
  if jax.sharding.get_abstract_mesh().empty or not _GATHERED & set(axes):
    return weight
  return _gather(weight, P(*(None if name in _GATHERED else P.UNCONSTRAINED for name in axes)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gather(weight: jax.Array, spec: P) -> jax.Array:
  return jax.lax.with_sharding_constraint(weight, spec)


_gather.defvjp(lambda weight, spec: (_gather(weight, spec), None), lambda spec, _, gradient: (gradient,))
