"""Checks that a compiled step does not gather whole stacks of layers, or keep the widest activations in float32."""

import math

import jax

from terraformer.config import RunConfig
from terraformer.layers.parameter import ModelFacts
from terraformer.models.parameters import flatten
from terraformer.pod.hlo import Program, shapes


def whole_gathers(program: Program, state: dict, facts: ModelFacts) -> list[str]:
  """Returns gathers, outside the loops over layers, with as many numbers as a stacked parameter or its moment.

  Args:
    program: the compiled program.
    state: shapes and shardings of the train state.
    facts: facts of the model's parameters.
  """
  stacked = {
    math.prod(x.shape) for x in jax.tree.leaves(state) if len(x.shape) > 1 and not x.sharding.is_fully_replicated
  }
  # The embedding, the output and other parameters outside of stacks need to be gathered once.
  single = {math.prod(x.shape) for path, x in flatten(state['params']).items() if facts[path].loop is None}
  return [
    text
    for text in program.gathers_outside_loops()
    if any(dtype[0] in 'fb' and math.prod(shape) in stacked - single for dtype, shape in shapes(text))
  ]


def float32_activations(program: Program, run: RunConfig, state: dict, shares: int, model_shares: int) -> list[str]:
  """Returns float32 arrays in memory with one device's batch x length x d_ff, or x vocabulary.

  Args:
    program: the compiled program.
    run: the run's configuration.
    state: shapes and shardings of the train state, whose own arrays do not count.
    shares: number of devices that share a batch.
    model_shares: number of devices that share a wide dimension, if it is sharded.
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
