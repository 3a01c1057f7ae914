"""Optimisers and learning-rate schedules, all from optax."""

import jax.numpy as jnp
import optax

from terraformer.config import AdafactorConfig, AdamWConfig, CosineScheduleConfig, RsqrtScheduleConfig
from terraformer.layers.parameter import ModelFacts
from terraformer.models.parameters import Params, flatten, stacks_of, unflatten
from terraformer.train.by_layer import ByLayer, Optimizer


def make_schedule(config: RsqrtScheduleConfig | CosineScheduleConfig) -> optax.Schedule:
  """Step -> learning rate; the first step is number 0 and already moves."""
  if isinstance(config, CosineScheduleConfig):
    return optax.schedules.warmup_cosine_decay_schedule(
      init_value=config.peak / config.warmup_steps,
      peak_value=config.peak,
      warmup_steps=config.warmup_steps,
      decay_steps=config.decay_steps,
      end_value=config.floor,
    )

  def rsqrt(step):
    n = jnp.asarray(step, jnp.float32) + 1
    return config.peak * jnp.minimum(n / config.warmup_steps, jnp.sqrt(config.warmup_steps / n))

  return rsqrt


def make_optimizer(config: AdafactorConfig | AdamWConfig, facts: ModelFacts) -> Optimizer:
  """The optimiser of a run (paper, appendix: Adafactor without momentum, each layer with arrays of its own).

  Args:
    config: which, and its settings.
    facts: of the model: which parameters are stacked, and which weight decay is for.
  """
  schedule = make_schedule(config.schedule)
  if isinstance(config, AdafactorConfig):
    return ByLayer(
      optax.adafactor(
        schedule,
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

  def decayed(params: Params) -> Params:
    return unflatten({path: facts[path].decays for path in flatten(params)})

  return optax.chain(
    optax.clip_by_global_norm(config.clip),
    optax.adamw(schedule, config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decayed),
  )
