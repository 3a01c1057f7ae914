"""Compiles the parts of a decoding step as separate programs, each over all layers.

B batch, D d_model.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import ModelConfig
from terraformer.decode.step import COMPILER_OPTIONS
from terraformer.decode.xla import StepWeights, step_model
from terraformer.models.base import DecodeState

# Scale of the results added to the running vector, so that the compiler keeps them but the vector hardly changes.
_SMALL = 1e-6
EMPTY = 'empty'


def part_programs(
  config: ModelConfig, weights: StepWeights, state: DecodeState, batch: int
) -> dict[str, Callable[[], Any]]:
  """Returns name of a part -> function without arguments that computes it once and waits for the result.

  `qkv` is the projections before and after attention, `attention` reads the cache (if a step reads all of it),
  `controller` picks units, `rows` is the rest of the feed-forward blocks, and `output` computes the logits; the program
  `EMPTY` takes the same arguments and computes nothing.
  """
  x_BxD = jnp.asarray(np.random.default_rng(0).standard_normal((batch, config.d_model)), jnp.float32)
  block = config.blocks['decoder']
  parts = {EMPTY: lambda model, state, x_BxD: x_BxD, 'qkv': _qkv, 'rows': _rows, 'output': _output}
  if block.attention.reads_whole_cache:
    parts['attention'] = _attention
  if block.feed_forward.picks_units:
    parts['controller'] = _controller

  def program(part):
    def compute(weights, state, x_BxD):
      return part(step_model(config, weights), state, x_BxD)

    compiled = jax.jit(compute, compiler_options=COMPILER_OPTIONS)
    return lambda: jax.block_until_ready(compiled(weights, state, x_BxD))

  return {name: program(part) for name, part in sorted(parts.items())}


def _qkv(model, state, x_BxD):
  for block, caches in zip(model.decoder.blocks, state.layers, strict=True):
    for half, kept in zip(block.attentions, caches, strict=False):
      projection = half.attention.projection
      (q_BxHxK, k_BxHxK, v_BxHxK), _ = projection.step(x_BxD, kept.projection)
      x_BxD += projection.output_step(q_BxHxK + k_BxHxK + v_BxHxK, kept.output)[0] * _SMALL
  return x_BxD


def _attention(model, state, x_BxD):
  for block, caches in zip(model.decoder.blocks, state.layers, strict=True):
    for half, kept in zip(block.attentions, caches, strict=False):
      q_BxHxK = x_BxD.reshape(len(x_BxD), *half.attention.head_shape)
      x_BxD += half.attention.read(q_BxHxK, kept, state.filled).reshape(x_BxD.shape) * _SMALL
  return x_BxD


def _controller(model, state, x_BxD):
  for block in model.decoder.blocks:
    units_BxM, _ = block.feed_forward.feed_forward.choose(x_BxD)
    x_BxD += units_BxM.sum(-1, keepdims=True) * _SMALL
  return x_BxD


def _rows(model, state, x_BxD):
  picks_units = model.config.blocks['decoder'].feed_forward.picks_units
  for block in model.decoder.blocks:
    layer = block.feed_forward.feed_forward
    if picks_units:
      # Units that depend on the vector, like the controller's, but are cheap to compute.
      units_BxM = (jnp.abs(x_BxD[:, :1] * 1e4) + 7 * jnp.arange(layer.config.n_blocks)).astype(jnp.int32)
      y_BxD = layer.read_rows(x_BxD, units_BxM % layer.config.block_size, None)
    else:
      y_BxD = layer.step(x_BxD)
    x_BxD += y_BxD * _SMALL
  return x_BxD


def _output(model, state, x_BxD):
  return model.logits(x_BxD).argmax(-1)
