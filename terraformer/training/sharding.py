"""Sharding: maps logical axis names to mesh axes.

The mesh has the axes `data` (batch), `fsdp` (parameters, and also the batch) and `model` (wide dimensions).
`ShardingConfig` has the rules.
"""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from terraformer.config import MeshConfig, ShardingConfig, TrainConfig, UserError

AXES = ('data', 'fsdp', 'model')
AXIS_TYPES = (AxisType.Auto,) * 3


def mesh_shape(config: MeshConfig, n_devices: int) -> tuple[int, int, int]:
  """Returns the number of devices along `data`, `fsdp` and `model`.

  Raises:
    UserError: if `fsdp * model` does not divide the number of devices.
  """
  split = config.fsdp * config.model
  if n_devices % split:
    raise UserError(f'MeshConfig: expected fsdp x model ({split}) to divide the number of devices, found {n_devices}')
  return n_devices // split, config.fsdp, config.model


def make_mesh(config: MeshConfig) -> Mesh:
  """Returns the mesh over all devices; raises UserError as `mesh_shape` does."""
  return jax.make_mesh(mesh_shape(config, jax.device_count()), AXES, axis_types=AXIS_TYPES)


def require_divisible(config: TrainConfig, mesh: Mesh) -> None:
  """Raises UserError unless the devices get equal shares of each batch or microbatch."""
  shares = mesh.shape['data'] * mesh.shape['fsdp']
  parts = config.microbatches
  if config.batch_size % (shares * parts):
    times = f' x {parts} microbatches' if parts > 1 else ''
    raise UserError(
      f'TrainConfig.batch_size: expected a multiple of the devices that share it ({shares}){times}, '
      f'found {config.batch_size}'
    )


def parameter_sharding(
  mesh: Mesh, rules: ShardingConfig, axes: tuple[str | None, ...], shape: tuple[int, ...]
) -> NamedSharding:
  """Returns the sharding of a parameter; a dimension is not split if it has no rule or its mesh axis does not divide
  it."""
  spec, used = [], set()
  for name, size in zip(axes, shape, strict=True):
    axis = getattr(rules, name or '', None)
    if axis in used or axis is None or size % mesh.shape[axis]:
      axis = None
    used.add(axis)
    spec.append(axis)
  return NamedSharding(mesh, P(*spec))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits examples over `data` and `fsdp`."""
  return NamedSharding(mesh, P(('data', 'fsdp')))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that replicates an array on every device."""
  return NamedSharding(mesh, P())
