"""Optimizers and learning-rate schedules from optax."""

import jax.numpy as jnp
import optax

from terraformer.config import (
  AdafactorConfig,
  AdamWConfig,
  CosineScheduleConfig,
  OptimizerConfig,
  RsqrtScheduleConfig,
  ScheduleConfig,
)
from terraformer.layers.make import maker
from terraformer.layers.parameter import ModelFacts
from terraformer.models.parameters import Params, flatten, stacks_of, unflatten
from terraformer.training.by_layer import ByLayer, Optimizer


def make_schedule(config: ScheduleConfig) -> optax.Schedule:
  """Returns a function from step to learning rate; the rate of the first step, number 0, is not zero."""
  return maker(config)(config)


def make_optimizer(config: OptimizerConfig, facts: ModelFacts) -> Optimizer:
  """Returns the optimizer of a run.

  Args:
    config: the kind of optimizer and its settings.
    facts: facts about the model: which parameters are stacked, and which get weight decay.
  """
  return maker(config)(config, facts)


def rsqrt_schedule(config: RsqrtScheduleConfig) -> optax.Schedule:
  """Returns warmup to the peak, then decay with the inverse square root of the step."""

  def rsqrt(step):
    n = jnp.asarray(step, jnp.float32) + 1
    return config.peak * jnp.minimum(n / config.warmup_steps, jnp.sqrt(config.warmup_steps / n))

  return rsqrt


def cosine_schedule(config: CosineScheduleConfig) -> optax.Schedule:
  """Returns warmup to the peak, then a half cosine down to the floor."""
  return optax.schedules.warmup_cosine_decay_schedule(
    init_value=config.peak / config.warmup_steps,
    peak_value=config.peak,
    warmup_steps=config.warmup_steps,
    decay_steps=config.decay_steps,
    end_value=config.floor,
  )


def adafactor(config: AdafactorConfig, facts: ModelFacts) -> Optimizer:
  """Returns Adafactor without momentum, applied to each layer separately (paper, appendix)."""
  return ByLayer(
    optax.adafactor(
      make_schedule(config.schedule),
      decay_rate=config.decay,
      clipping_threshold=config.clip,
      eps=config.epsilon,
      weight_decay_rate=config.weight_decay,
      multiply_by_parameter_scale=True,
      momentum=None,
      min_dim_size_to_factor=config.factor_from,
    ),
    stacks_of(facts),
  )


def adamw(config: AdamWConfig, facts: ModelFacts) -> Optimizer:
  """Returns AdamW; parameters that the facts exempt are not decayed."""

  def decayed(params: Params) -> Params:
    return unflatten({path: facts[path].decays for path in flatten(params)})

  schedule = make_schedule(config.schedule)
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.adamw(schedule, config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decayed),
  )
