"""One optimiser step, one evaluation step and one batch of samples, as pure functions of plain dicts."""

from collections.abc import Callable

import jax
import optax
from flax import nnx

from terraformer.models.generate import generate
from terraformer.models.parameters import Params, merge
from terraformer.train.loss import mean_loss, model_losses
from terraformer.train.metrics import EvalMetrics, TrainMetrics
from terraformer.train.state import State

Batch = dict[str, jax.Array]


def make_train_step(
  structure: nnx.GraphDef, optimizer: optax.GradientTransformation, schedule: optax.Schedule, key: jax.Array
) -> Callable[[State, Batch], tuple[State, TrainMetrics]]:
  """The function (state, batch of `inputs` BxS and `targets` BxT) -> (new state, metrics of this step).

  Noise is drawn from `key` folded with the step, so a step is a function of its arguments alone.
  """

  def train_step(state: State, batch: Batch) -> tuple[State, TrainMetrics]:
    step_key = jax.random.fold_in(key, state['step'])

    def loss_of(params: Params):
      losses = model_losses(merge(structure, params), batch['inputs'], batch['targets'], key=step_key)
      return mean_loss(losses), losses

    (_, losses), gradients = jax.value_and_grad(loss_of, has_aux=True)(state['params'])
    updates, optimizer_state = optimizer.update(gradients, state['optimizer'], state['params'])
    new_state = {
      'params': optax.apply_updates(state['params'], updates),
      'optimizer': optimizer_state,
      'step': state['step'] + 1,
    }
    metrics = TrainMetrics.single_from_model_output(
      **losses, gradient_norm=optax.tree.norm(gradients), learning_rate=schedule(state['step'])
    )
    return new_state, metrics

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
