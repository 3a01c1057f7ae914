"""Training, evaluation, sampling and probe steps as pure functions of plain dicts.

B batch, S source time, T target time, A microbatches of a batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from terraformer.layers.parameter import facts_of
from terraformer.models.base import Model
from terraformer.models.generate import generate
from terraformer.models.parameters import Params, merge_module
from terraformer.models.probe import unit_counts
from terraformer.ops.constrain import join_microbatches, split_microbatches
from terraformer.ops.segments import Segments
from terraformer.training.backwards import can_update_backwards, update_backwards
from terraformer.training.by_layer import Optimizer
from terraformer.training.diagnostics import gradient_squares
from terraformer.training.loss import model_losses, summed_loss
from terraformer.training.metrics import EvalMetrics, TrainMetrics
from terraformer.training.state import State

Batch = dict[str, jax.Array]
Norms = dict[str, jax.Array]


def make_train_step(
  structure: nnx.GraphDef,
  optimizer: Optimizer,
  schedule: optax.Schedule,
  key: jax.Array,
  microbatches: int = 1,
) -> Callable[[State, Batch], tuple[State, TrainMetrics, Norms]]:
  """Returns a function (state, batch of `inputs` BxS and `targets` BxT) -> (new state, metrics, gradient norms).

  A batch of packed rows also has `inputs_segments` BxS and `targets_segments` BxT.

  The norms by part of the model are the square roots of `diagnostics.gradient_squares`. If possible, layers are updated
  inside the backward pass (`training.backwards`), for the whole batch at once.

  Noise comes from `key` folded with the step, so a step is a function of its arguments. With several microbatches, the
  gradient is the same sum over all tokens, computed one microbatch at a time.
  """

  def gradients_of(params: Params, batch: Batch, key: jax.Array, loss_of: Callable):
    of_part = jax.grad(lambda params, *part: loss_of(merge_module(structure, params), *part), has_aux=True)
    if microbatches == 1:
      return of_part(params, batch, key)

    def accumulate(sums: Params, part: tuple[Batch, jax.Array]):
      gradients, losses = of_part(params, *part)
      return jax.tree.map(jnp.add, sums, gradients), losses

    parts = {name: split_microbatches(x, microbatches) for name, x in batch.items()}
    keys_A = jax.random.split(key, microbatches)
    gradients, losses_A = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, params), (parts, keys_A))
    return gradients, jax.tree.map(join_microbatches, losses_A)

  def update(params: Params, optimizer_state: Any, batch: Batch, key: jax.Array):
    n_tokens = jnp.maximum((batch['targets'] != 0).sum(), 1)

    def loss_of(model: Model, part: Batch, key: jax.Array):
      losses = model_losses(model, part['inputs'], part['targets'], segments=_segments(part), key=key)
      return summed_loss(losses) / n_tokens, losses

    model = merge_module(structure, params)
    if microbatches == 1 and can_update_backwards(model, optimizer):
      return update_backwards(structure, optimizer, params, optimizer_state, lambda model: loss_of(model, batch, key))
    gradients, losses = gradients_of(params, batch, key, loss_of)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
    return optax.apply_updates(params, updates), optimizer_state, losses, gradient_squares(gradients, facts_of(model))

  def train_step(state: State, batch: Batch) -> tuple[State, TrainMetrics, Norms]:
    step_key = jax.random.fold_in(key, state['step'])
    params, optimizer_state, losses, squares = update(state['params'], state['optimizer'], batch, step_key)
    new_state = {'params': params, 'optimizer': optimizer_state, 'step': state['step'] + 1}
    metrics = TrainMetrics.single_from_model_output(
      **losses,
      gradient_norm=jnp.sqrt(sum(x.sum() for x in squares.values())),
      learning_rate=schedule(state['step']),
    )
    return new_state, metrics, jax.tree.map(jnp.sqrt, squares)

  return train_step


def make_eval_step(structure: nnx.GraphDef) -> Callable[[Params, Batch], EvalMetrics]:
  """Returns a function (parameters, batch) -> metrics, without dropout or noise."""

  def eval_step(params: Params, batch: Batch) -> EvalMetrics:
    losses = model_losses(merge_module(structure, params), batch['inputs'], batch['targets'], segments=_segments(batch))
    return EvalMetrics.single_from_model_output(**losses)

  return eval_step


def make_sample_step(structure: nnx.GraphDef, n_tokens: int, n_ids: int) -> Callable[[Params, jax.Array], jax.Array]:
  """Returns a function (parameters, inputs BxS) -> greedy tokens BxT."""
  return lambda params, inputs_BxS: generate(merge_module(structure, params), inputs_BxS, n_tokens, n_ids)


def make_probe_step(structure: nnx.GraphDef) -> Callable[[Params, Batch], dict[str, jax.Array]]:
  """Returns a function (parameters, batch) -> `models.probe.unit_counts`."""

  def probe_step(params: Params, batch: Batch) -> dict[str, jax.Array]:
    return unit_counts(merge_module(structure, params), batch['inputs'], batch['targets'], segments=_segments(batch))

  return probe_step


def _segments(batch: Batch) -> Segments | None:
  return Segments(batch['inputs_segments'], batch['targets_segments']) if 'inputs_segments' in batch else None
