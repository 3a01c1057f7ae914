"""Compiles the training step of a configuration for a slice of TPUs, without having one."""

import dataclasses
import importlib.util
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from terraformer.config import RunConfig, UserError, first_line
from terraformer.layers.parameter import facts_of
from terraformer.models.make import abstract_model
from terraformer.models.parameters import count, split_module
from terraformer.pod.checks import float32_activations, whole_gathers
from terraformer.pod.chips import CHIPS, Chip
from terraformer.pod.flops import count_flops
from terraformer.pod.hlo import Moved, Program
from terraformer.training.optimizer import make_optimizer, make_schedule
from terraformer.training.sharding import AXES, AXIS_TYPES, batch_sharding, mesh_shape, replicated, require_divisible
from terraformer.training.state import abstract_state, step_options
from terraformer.training.step import make_train_step

_SLICE = re.compile('[1-9][0-9]{0,3}(x[1-9][0-9]{0,3}){0,2}')


@dataclasses.dataclass(frozen=True)
class CompiledStep:
  """The compiler's report on one training step.

  Attributes:
    topology: the requested topology.
    chip: the chips of the topology.
    mesh: number of devices along each axis.
    parameters: number of parameters of the model.
    tokens: number of tokens in one step, sources and targets.
    argument_bytes, temp_bytes, code_bytes, peak_bytes: memory of one device.
    flops: operations of all devices together, including recomputation.
    moved: data that one device moves.
    compile_seconds: duration of the compilation.
    whole_gathers, float32_activations: results of `checks`; both should be empty.
  """

  topology: str
  chip: Chip
  mesh: dict[str, int]
  parameters: int
  tokens: int
  argument_bytes: int
  temp_bytes: int
  code_bytes: int
  peak_bytes: int
  flops: int
  moved: Moved
  compile_seconds: float
  whole_gathers: list[str]
  float32_activations: list[str]

  @property
  def n_devices(self) -> int:
    return int(np.prod(list(self.mesh.values())))

  @property
  def fits(self) -> bool:
    """Whether the peak is below a device's memory."""
    return self.peak_bytes <= self.chip.hbm_bytes

  @property
  def dense_flops(self) -> int:
    """6 operations per parameter and token, as in training a dense model of this size, the usual basis of MFU."""
    return 6 * self.parameters * self.tokens

  @property
  def seconds(self) -> dict[str, float]:
    """Seconds that computation, memory and links would each take alone, at their peaks."""
    return {
      'compute': self.flops / self.n_devices / self.chip.flops,
      'memory': self.moved.memory_bytes / self.chip.hbm_bandwidth,
      'links': sum(self.moved.collective_bytes.values()) / self.chip.link_bandwidth,
    }

  @property
  def step_seconds(self) -> float:
    """The roofline: the longest of the three times, as if they overlapped completely."""
    return max(self.seconds.values())

  @property
  def mfu(self) -> float:
    """Share of the peak that the dense-equivalent operations reach at the roofline."""
    return self.dense_flops / (self.step_seconds * self.n_devices * self.chip.flops)


def find_slice(topology: str) -> tuple[Chip, list[jax.Device]]:
  """Returns the chip and the devices of a topology, such as `v5e:4x4`.

  Raises:
    UserError: if there is no such chip or slice, or libtpu is not installed or used by another process.
  """
  name, _, size = topology.partition(':')
  chip = CHIPS.get(name)
  if chip is None:
    raise UserError(f'--topology {topology}: unknown chip; use one of {", ".join(CHIPS)}, as in v5e:4x4')
  if not _SLICE.fullmatch(size):
    raise UserError(f'--topology {topology}: expected CHIP:SLICE, as in v5e:4x4')
  if importlib.util.find_spec('libtpu') is None:
    raise UserError("`compile` needs libtpu, which is not installed; pip install '.[tpu]'")
  try:
    return chip, topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
  except Exception as error:  # libtpu may raise any type
    found = first_line(error)
    if 'lockfile' in found:
      raise UserError('another process uses libtpu; wait for it') from error
    raise UserError(f'--topology {topology}: libtpu knows no slice {size} of {name} ({found})') from error


def compile_step(run: RunConfig, topology: str) -> CompiledStep:
  """Compiles the full training step: forward pass, backward pass and optimizer.

  Args:
    run: the configuration; its mesh covers the slice.
    topology: chip and slice as Cloud TPU names them, such as `v5e:4x4`.

  Raises:
    UserError: if the chip or slice does not exist, the mesh or the batch does not fit it, or libtpu is not installed.
  """
  run.require_source()
  chip, devices = find_slice(topology)
  shape = mesh_shape(run.train.mesh, len(devices))
  mesh = Mesh(np.array(devices).reshape(shape), AXES, axis_types=AXIS_TYPES)
  require_divisible(run.train, mesh)

  model = abstract_model(run.model)
  (structure, params), facts = split_module(model), facts_of(model)
  optimizer, schedule = make_optimizer(run.train.optimizer, facts), make_schedule(run.train.optimizer.schedule)
  state = abstract_state(params, facts, optimizer, mesh, run.train.mesh.rules)
  batch = {
    name: jax.ShapeDtypeStruct((run.train.batch_size, length), jnp.int32, sharding=batch_sharding(mesh))
    for name, length in run.data.batch_lengths.items()
  }
  key = jax.eval_shape(lambda: jax.random.key(0))
  key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))

  def step(state, batch, key):
    return make_train_step(structure, optimizer, schedule, key, run.train.microbatches)(state, batch)

  begun = time.perf_counter()
  with jax.set_mesh(mesh):
    traced = jax.jit(step, **step_options(state, mesh)).trace(state, batch, key)
    compiled = traced.lower().compile()
  memory, program = compiled.memory_analysis(), Program(compiled.as_text())
  peak = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes
  )
  return CompiledStep(
    topology=topology,
    chip=chip,
    mesh=dict(mesh.shape),
    parameters=count(params),
    tokens=run.train.batch_size * sum(run.data.lengths.values()),
    argument_bytes=memory.argument_size_in_bytes,
    temp_bytes=memory.temp_size_in_bytes,
    code_bytes=memory.generated_code_size_in_bytes,
    peak_bytes=peak,
    flops=count_flops(traced.jaxpr.jaxpr),
    moved=program.moved(),
    compile_seconds=time.perf_counter() - begun,
    whole_gathers=whole_gathers(program, state, facts),
    float32_activations=float32_activations(program, run, state, shape[0] * shape[1], shape[2]),
  )
