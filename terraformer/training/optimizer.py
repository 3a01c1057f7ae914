"""Optimizers and learning-rate schedules, all from optax."""

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
  """Step -> learning rate; the first step is number 0 and already moves."""
  return maker(config)(config)


def make_optimizer(config: OptimizerConfig, facts: ModelFacts) -> Optimizer:
  """The optimizer of a run.

  Args:
    config: which, and its settings.
    facts: of the model: which parameters are stacked, and which weight decay is for.
  """
  return maker(config)(config, facts)


def rsqrt_schedule(config: RsqrtScheduleConfig) -> optax.Schedule:
  """Up to the peak, then down by the inverse square root of the step."""

  def rsqrt(step):
    n = jnp.asarray(step, jnp.float32) + 1
    return config.peak * jnp.minimum(n / config.warmup_steps, jnp.sqrt(config.warmup_steps / n))

  return rsqrt


def cosine_schedule(config: CosineScheduleConfig) -> optax.Schedule:
  """Up to the peak, then half a cosine down to the floor."""
  return optax.schedules.warmup_cosine_decay_schedule(
    init_value=config.peak / config.warmup_steps,
    peak_value=config.peak,
    warmup_steps=config.warmup_steps,
    decay_steps=config.decay_steps,
    end_value=config.floor,
  )


def adafactor(config: AdafactorConfig, facts: ModelFacts) -> Optimizer:
  """Adafactor without momentum, each layer with arrays of its own (paper, appendix)."""
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
  """AdamW; what the facts exempt is not decayed."""

  def decayed(params: Params) -> Params:
    return unflatten({path: facts[path].decays for path in flatten(params)})

  schedule = make_schedule(config.schedule)
  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.adamw(schedule, config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decayed),
  )
