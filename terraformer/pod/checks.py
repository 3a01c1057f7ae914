"""What a compiled step must not do: gather a stack of layers in one go, or keep the widest activations in float32."""

import math

import jax

from terraformer.config import RunConfig
from terraformer.layers.parameter import ModelFacts
from terraformer.models.parameters import flatten
from terraformer.pod.hlo import Program, shapes


def whole_gathers(program: Program, state: dict, facts: ModelFacts) -> list[str]:
  """Gathers, outside the loops over layers, of numbers as many as a stacked parameter, or moment of one, has.

  Args:
    program: compiled.
    state: shapes and places of the train state.
    facts: of the model.
  """
  stacked = {
    math.prod(x.shape) for x in jax.tree.leaves(state) if len(x.shape) > 1 and not x.sharding.is_fully_replicated
  }
  # The embedding, the output and others of which there is one are gathered once by their nature.
  single = {math.prod(x.shape) for path, x in flatten(state['params']).items() if facts[path].loop is None}
  return [
    text
    for text in program.gathers_outside_loops()
    if any(dtype[0] in 'fb' and math.prod(shape) in stacked - single for dtype, shape in shapes(text))
  ]


def float32_activations(program: Program, run: RunConfig, state: dict, shares: int, model_shares: int) -> list[str]:
  """Arrays in memory of one device's batch x length x d_ff or x vocabulary, in float32.

  Args:
    program: compiled.
    run: its configuration.
    state: shapes and places of the train state, whose own arrays do not count.
    shares: devices that share a batch.
    model_shares: devices that share a wide dimension, if it is divided.
  """
  n_inputs, n_targets = run.data.inputs_length, run.data.targets_length
  batch = run.train.batch_size // run.train.microbatches // shares
  wide = {run.model.vocab_size} | {block.feed_forward.d_ff for block in run.model.blocks.values()}
  wide |= {width // model_shares for width in wide}
  sizes = {batch * length * width for length in (n_inputs, n_targets, n_inputs + n_targets) for width in wide}
  own = {x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state)}
  own |= {shape[1:] for shape in own} | {(1, *shape[1:]) for shape in own}
  found = [
    shape
    for dtype, shape in program.arrays()
    if dtype == 'f32' and math.prod(shape) in sizes and shape not in own and len(shape) > 1
  ]
  return [f'f32{list(shape)}' for shape in sorted(set(found))]
