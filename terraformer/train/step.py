"""One optimiser step, one evaluation step and one batch of samples, as pure functions of plain dicts.

B batch, S source time, T target time, A parts of a batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from terraformer.models.generate import generate
from terraformer.models.parameters import Params, merge
from terraformer.models.probe import unit_counts
from terraformer.ops.constrain import join_parts, split_in_parts
from terraformer.train.loss import model_losses, summed_loss
from terraformer.train.metrics import EvalMetrics, TrainMetrics
from terraformer.train.state import State
from terraformer.train.watch import gradient_norms

Batch = dict[str, jax.Array]
Norms = dict[str, jax.Array]


def make_train_step(
  structure: nnx.GraphDef,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  key: jax.Array,
  microbatches: int = 1,
) -> Callable[[State, Batch], tuple[State, TrainMetrics, Norms]]:
  """The function (state, batch of `inputs` BxS and `targets` BxT) -> (new state, metrics, `watch.gradient_norms`).

  Noise is drawn from `key` folded with the step, so a step is a function of its arguments alone. With several
  microbatches the gradient is the same sum over all tokens, computed a part of the batch at a time.
  """

  def gradients_of(params: Params, batch: Batch, key: jax.Array):
    n_tokens = jnp.maximum((batch['targets'] != 0).sum(), 1)

    def loss_of(params: Params, part: Batch, key: jax.Array):
      losses = model_losses(merge(structure, params), part['inputs'], part['targets'], key=key)
      return summed_loss(losses) / n_tokens, losses

    of_part = jax.grad(loss_of, has_aux=True)
    if microbatches == 1:
      return of_part(params, batch, key)

    def accumulate(sums: Params, part: tuple[Batch, jax.Array]):
      gradients, losses = of_part(params, *part)
      return jax.tree.map(jnp.add, sums, gradients), losses

    parts = {name: split_in_parts(x, microbatches) for name, x in batch.items()}
    keys_A = jax.random.split(key, microbatches)
    gradients, losses_A = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, params), (parts, keys_A))
    return gradients, jax.tree.map(join_parts, losses_A)

  def train_step(state: State, batch: Batch) -> tuple[State, TrainMetrics, Norms]:
    gradients, losses = gradients_of(state['params'], batch, jax.random.fold_in(key, state['step']))
    updates, optimizer_state = optimizer.update(gradients, state['optimizer'], state['params'])
    new_state = {
      'params': optax.apply_updates(state['params'], updates),
      'optimizer': optimizer_state,
      'step': state['step'] + 1,
    }
    metrics = TrainMetrics.single_from_model_output(
      **losses, gradient_norm=optax.tree.norm(gradients), learning_rate=schedule(state['step'])
    )
    return new_state, metrics, gradient_norms(gradients)

  return train_step


def make_eval_step(structure: nnx.GraphDef) -> Callable[[Params, Batch], EvalMetrics]:
  """The function (parameters, batch) -> metrics, without dropout or noise."""

  def eval_step(params: Params, batch: Batch) -> EvalMetrics:
    losses = model_losses(merge(structure, params), batch['inputs'], batch['targets'])
    return EvalMetrics.single_from_model_output(**losses)

  return eval_step


def make_sample_step(structure: nnx.GraphDef, n_tokens: int, n_ids: int) -> Callable[[Params, jax.Array], jax.Array]:
  """The function (parameters, inputs BxS) -> greedy tokens BxT."""
  return lambda params, inputs_BxS: generate(merge(structure, params), inputs_BxS, n_tokens, n_ids)


def make_probe_step(structure: nnx.GraphDef) -> Callable[[Params, Batch], dict[str, jax.Array]]:
  """The function (parameters, batch) -> `models.probe.unit_counts`."""
  return lambda params, batch: unit_counts(merge(structure, params), batch['inputs'], batch['targets'])
