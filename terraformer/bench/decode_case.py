"""A model with random weights whose decoding steps are measured with one engine.

B batch, S source time.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.bench.machine import Pool
from terraformer.config import DecodeConfig, ModelConfig
from terraformer.decode import step as steps
from terraformer.decode.bundle import parameter_shapes
from terraformer.decode.engine import Engine
from terraformer.decode.native.engine import NativeEngine
from terraformer.decode.sampling import SamplingParams
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts
from terraformer.decode.storage import layouts_for
from terraformer.decode.stored import ArrayLayout, Layout, RowsLayout
from terraformer.decode.xla import XlaEngine
from terraformer.models.base import DecodeState
from terraformer.models.cost import cache_numbers, n_read
from terraformer.models.parameters import unflatten
from terraformer.ops.cache_slots import FilledSlots, prompt_slots
from terraformer.ops.recent_keys import RecentKeys, recent_keys_of

TURN = 6  # tokens that a case generates in one turn
_ROOM = TURN + 2  # slots after the context for the tokens of one turn; each turn overwrites them
_ITEM_BYTES = {'float32': 4, 'bfloat16': 2, 'int8': 1}


@dataclasses.dataclass(frozen=True)
class Spec:
  """The settings of a case.

  Attributes:
    variant: variant of the model.
    engine: `xla`, `native` or `llama.cpp`.
    dtype, cache_dtype: types of the weights and of the KV cache.
  """

  variant: str
  engine: str
  dtype: str
  cache_dtype: str

  def __str__(self) -> str:
    cache = '' if self.cache_dtype == self.dtype else f', {self.cache_dtype} cache'
    return f'{self.variant} {self.engine} {self.dtype}{cache}'


class Case:
  """A model that is being measured.

  Attributes:
    spec: the settings of the case.
    config: the model's configuration for decoding.
    engine: the engine that computes the steps.
    seconds: times of the steps so far.
  """

  def __init__(
    self, spec: Spec, config: ModelConfig, pool: Pool, context: int, batch: int, n_threads: int | None = None
  ):
    """Opens the engine and takes a turn, which compiles the step.

    Args:
      spec: the settings of the case.
      config: the model's configuration for decoding.
      pool: the pool that provides the weights.
      context: number of random positions before the first step.
      batch: number of texts in the batch.
      n_threads: number of threads of the native engine; None for one per core.

    Raises:
      NoKernelError: if the native engine cannot run the model.
      OSError: if the native engine is not available.
    """
    self.spec, self.config, self.batch, self.context = spec, config, batch, context
    weights = unflatten(_weights(config, spec.dtype, pool))
    start = filled_state(config, context, batch, _ROOM)
    self.engine: Engine
    if spec.engine == 'native':
      self.engine = NativeEngine(config, weights, n_threads or 0, spec.dtype)
      state = self.engine.from_xla(start, _ROOM, spec.cache_dtype)
    else:
      self.engine, state = XlaEngine(config, weights), start
    self._start = jax.tree.map(jnp.copy, _counts(state))
    self.sampling = steps.SamplingState(state, jnp.int32(0), None)
    self._step = steps.compile_step(self.engine.forward, config.vocab_size)
    self.seconds: list[float] = []
    self.take_turn()
    self.seconds.clear()

  def take_turn(self) -> None:
    """Generates tokens and records the time between them; starts each step before it fetches the previous token."""
    arguments, params = self.engine.arguments, SamplingParams.from_config(DecodeConfig())
    state = _with_counts(self.sampling.state, jax.tree.map(jnp.copy, self._start))
    self.sampling = dataclasses.replace(self.sampling, state=state)
    rng = np.random.default_rng(len(self.seconds))
    token_B = jnp.asarray(rng.integers(2, self.config.vocab_size, self.batch), jnp.int32)
    pending, last = [], None
    for _ in range(TURN + 2):
      token_B, self.sampling = self._step(arguments, self.sampling, token_B, params)
      pending.append(token_B)
      if len(pending) > 1:
        np.asarray(pending.pop(0))
        now = time.perf_counter()
        if last is not None:
          self.seconds.append(now - last)
        last = now
    np.asarray(pending.pop())

  @property
  def about(self) -> str:
    """Description of the engine."""
    return self.engine.about

  @property
  def layers(self) -> int:
    """Number of decoder layers."""
    return self.config.decoder_shape[0]

  @property
  def params(self) -> int:
    """Number of parameters, without those that only read the source."""
    return n_decoding(self.config)

  @property
  def bytes_per_step(self) -> int:
    """Bytes that a step must read: parameters, in the layout of the engine, and keys and values."""
    facts, layouts, total = layerwise_facts(self.config), layouts_for(self.config, self.spec.dtype), 0.0
    for name, shape in parameter_shapes(self.config).items():
      layout = layouts[name] if self.spec.engine == 'native' else ArrayLayout()
      stored = sum(part.size * part.dtype.itemsize for part in layout.parts(name, shape.shape).values())
      total += stored * n_read(facts[name], shape, self.batch) / max(1, shape.size)
    numbers = self.batch * cache_numbers(self.config, self.context)
    return round(total) + numbers * _ITEM_BYTES[self.spec.cache_dtype]


def n_decoding(config: ModelConfig) -> int:
  """Returns the number of a model's parameters, without those that only read the source and whose output the decoder
  caches."""
  facts = layerwise_facts(config)
  shapes = parameter_shapes(config).items()
  return sum(x.size for name, x in shapes if facts[name].in_step or facts[name].stack == 'decoder')


def weight_bytes(config: ModelConfig, dtype: str) -> int:
  """Returns the bytes of the pool that a model's weights need."""
  return sum(
    -(-part.size * part.dtype.itemsize // 64) * 64
    for shapes in _stored(config, dtype).values()
    for part in shapes[1].values()
  )


def _stored(config: ModelConfig, dtype: str) -> dict[str, tuple[Layout, dict[str, jax.ShapeDtypeStruct]]]:
  """Returns the layout of each parameter that a step reads, and the shapes of its stored tensors."""
  facts, layouts = layerwise_facts(config), layouts_for(config, dtype)
  shapes = parameter_shapes(config)
  return {
    name: (layouts[name], layouts[name].parts(name, x.shape)) for name, x in shapes.items() if facts[name].in_step
  }


def _weights(config: ModelConfig, dtype: str, pool: Pool) -> dict[str, Any]:
  """Returns the values of all parameters: from the pool if a step reads them, otherwise zeros that take no memory."""
  stored, shapes = _stored(config, dtype), parameter_shapes(config)
  arrays = pool.cut({part: shape for _, parts in stored.values() for part, shape in parts.items()})
  values: dict[str, Any] = {}
  for name, shape in shapes.items():
    if name not in stored:
      values[name] = np.broadcast_to(np.float32(0), shape.shape)
      continue
    layout, parts = stored[name]
    tensors = {part: arrays[part] for part in parts}
    if getattr(layout, 'dtype', 'int8') == 'int8':
      tensors = _in_8_bits(name, layout, shape.shape)
    values[name] = layout.value(name, shape.shape, tensors)
  return values


def _in_8_bits(name: str, layout: Layout, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
  """Returns random 8-bit tensors with reasonable scales, which the bytes of the pool would not give."""
  rng = np.random.default_rng(0)
  if isinstance(layout, RowsLayout):
    numbers = np.resize(rng.integers(-127, 128, 1 << 20, np.int8), shape)
    return {name: numbers, f'{name}.scales': np.full(shape[:-1], 0.05 / 127, np.float32)}
  return layout.encode(name, np.resize(rng.uniform(-0.05, 0.05, (1 << 20) + 3).astype(np.float32), shape))


def _counts(state: Any) -> list[jax.Array]:
  """Returns the arrays of a state that count positions."""
  return [x for x in jax.tree.leaves(state) if _is_count(x)]


def _with_counts(state: Any, counts: list[jax.Array]) -> Any:
  left = iter(counts)
  return jax.tree.map(lambda x: next(left) if _is_count(x) else x, state)


def _is_count(x: jax.Array) -> bool:
  return x.dtype == jnp.int32 and x.ndim < 2


def filled_state(config: ModelConfig, context: int, batch: int, room: int) -> DecodeState:
  """Returns XLA's state after `context` random positions, with slots for `room` more."""
  model = abstract_layerwise(config)
  inputs_BxS = jax.ShapeDtypeStruct((batch, context), jnp.int32)
  shapes = jax.eval_shape(lambda model, inputs_BxS: model.prefill(inputs_BxS, room), model, inputs_BxS)
  rng = np.random.default_rng(0)
  context_B = jnp.full(batch, context, jnp.int32)
  numbers = rng.standard_normal(1 << 20, np.float32)

  def fill(shape):
    if isinstance(shape, FilledSlots):
      return prompt_slots(context_B, context)
    if isinstance(shape, RecentKeys):
      *lead, n_buckets, n_slots = shape.position_BxHxRxNxS.shape
      return recent_keys_of(
        jnp.asarray(rng.integers(0, n_buckets, (*lead, context))), context_B, n_buckets, n_slots - 1
      )
    if shape.dtype == jnp.int32:
      return context_B if shape.shape else jnp.int32(context)
    if shape.dtype == bool:
      return jnp.ones(shape.shape, bool)
    return jnp.resize(numbers, shape.shape)

  state = jax.tree.map(fill, shapes, is_leaf=lambda node: isinstance(node, (FilledSlots, RecentKeys)))
  return jax.tree.map(jnp.copy, state)  # a step donates the buffers, so no two arrays may share one
