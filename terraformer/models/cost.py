"""What a model consists of, and what one decoded token costs: parameters read and floating-point operations."""

import dataclasses
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from terraformer.config import EncoderDecoderConfig, LSHAttentionConfig, ModelConfig
from terraformer.models.make import abstract_model, unroll
from terraformer.models.parameters import flatten, split
from terraformer.models.rows import row_axis

# The part that a parameter belongs to, by its path; the first pattern that is found.
_PARTS = (
  (r'^embedding\.', 'embedding'),
  (r'positions\.', 'positions'),
  (r'recurrence\.', 'recurrence'),
  (r'norm\.', 'normalisation'),
  (r'^merge\.|forgets\.', 'merging streams'),
  (r'^output\.', 'output layer'),
  (r'attention\.projection\.output', 'attention output'),
  (r'attention\.projection\.', 'QKV'),
  (r'\.(controller|router)_', 'controller'),
  (r'feed_forward\.', 'feed-forward'),
)
# The encoder runs before decoding; keys and values of its output are computed once.
_NOT_READ = re.compile(r'^encoder|^merge|\.cross\.attention\.projection\.(key|value)\.')


@dataclasses.dataclass(frozen=True)
class Part:
  """One part of a model.

  Attributes:
    parameters: in all.
    read: of them by one decoded token.
  """

  parameters: int
  read: int


@dataclasses.dataclass(frozen=True)
class Cost:
  """A model and one decoded token of it.

  Attributes:
    parts: by name, `encoder QKV` or `output layer`.
    context: tokens that the token sees.
    cache_numbers: keys and values that it reads.
    flops: floating-point operations, as XLA counts them in the decoding step.
  """

  parts: Mapping[str, Part]
  context: int
  cache_numbers: int
  flops: int

  @property
  def parameters(self) -> int:
    """Of all parts."""
    return sum(part.parameters for part in self.parts.values())

  @property
  def read(self) -> int:
    """Parameters that one decoded token reads."""
    return sum(part.read for part in self.parts.values())


def cost(config: ModelConfig, context: int) -> Cost:
  """Counts a model without allocating it.

  Args:
    config: of the model.
    context: tokens before the one that is decoded, and of the source where cross-attention reads one as well.
  """
  model = abstract_model(config)
  parts: dict[str, Part] = {}
  for path, leaf in flatten(split(model)[1]).items():
    name = _part_name(path)
    part = parts.get(name, Part(0, 0))
    parts[name] = Part(part.parameters + leaf.size, part.read + n_read(path, leaf))
  return Cost(parts, context, cache_numbers(config, context), _flops(model, context))


def _part_name(path: str) -> str:
  part = next((name for pattern, name in _PARTS if re.search(pattern, path)), 'other')
  stack = re.match(r'(encoder|decoder)[._]', path)
  return f'{stack[1]} {part}' if stack else part


def n_read(path: str, leaf: jax.ShapeDtypeStruct, batch: int = 1) -> int:
  """Numbers of a parameter, known by its path, that one step reads for a batch whose tokens share no row."""
  if _NOT_READ.search(path):
    return 0
  axis = row_axis(path)
  return leaf.size if axis is None else min(leaf.size, batch * leaf.size // leaf.shape[axis])


def cache_numbers(config: ModelConfig, context: int) -> int:
  """Keys and values that one token reads behind `context` others."""
  block = config.blocks['decoder']
  n_layers = getattr(config, 'n_layers', None) or config.n_decoder_layers
  n_attentions = getattr(config, 'n_attentions', None) or config.n_decoder_attentions
  seen = context
  if isinstance(block.attention, LSHAttentionConfig) and context > block.attention.full_below:
    seen = min(context, block.attention.n_rounds * block.attention.window)
  if isinstance(config, EncoderDecoderConfig):
    return 2 * n_layers * (n_attentions * seen + context) * block.d_model
  return 2 * n_layers * n_attentions * seen * block.d_model


def _flops(model, context: int) -> int:
  """Of one step behind `context` tokens, of which the source is as long as that."""
  structure = jax.eval_shape(unroll, model)

  def prefill(model, inputs_BxS):
    return model.prefill(inputs_BxS, 1)

  inputs_BxS = jax.ShapeDtypeStruct((1, context), jnp.int32)
  cache = jax.eval_shape(prefill, structure, inputs_BxS)
  step = jax.jit(lambda model, token_B, cache: model.step(token_B, cache))
  analysis = step.lower(structure, jax.ShapeDtypeStruct((1,), jnp.int32), cache).cost_analysis()
  return int(analysis['flops'])
