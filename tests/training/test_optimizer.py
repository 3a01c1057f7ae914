import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from terraformer.config import AdafactorConfig, AdamWConfig, CosineScheduleConfig, RsqrtScheduleConfig
from terraformer.layers.parameter import Facts
from terraformer.training.optimizer import make_optimizer, make_schedule


def test_rsqrt_rises_to_the_peak_and_halves_at_four_times_the_warmup():
  schedule = make_schedule(RsqrtScheduleConfig(peak=0.5, warmup_steps=100))
  np.testing.assert_allclose([schedule(0), schedule(49), schedule(99), schedule(399)], [0.005, 0.25, 0.5, 0.25])


def test_cosine_ends_at_its_floor_and_never_starts_at_zero():
  schedule = make_schedule(CosineScheduleConfig(peak=1.0, warmup_steps=10, decay_steps=110, floor=0.1))
  np.testing.assert_allclose([schedule(0), schedule(10), schedule(60), schedule(110)], [0.1, 1.0, 0.55, 0.1], rtol=1e-5)


@pytest.mark.parametrize('config', [AdafactorConfig(RsqrtScheduleConfig(0.1, 1)), AdamWConfig()])
def test_an_optimizer_finds_the_minimum_of_a_parabola(config):
  optimizer = make_optimizer(config, {'kernel': Facts((None, None))})
  params = {'kernel': jnp.full((3, 2), 2.0)}
  state = optimizer.init(params)
  start = float((params['kernel'] ** 2).sum())
  for _ in range(200):
    updates, state = optimizer.update({'kernel': 2 * params['kernel']}, state, params)
    params = {'kernel': params['kernel'] + updates['kernel']}
  assert float((params['kernel'] ** 2).sum()) < start * 0.9


def test_the_second_moments_of_a_sparse_feed_forward_block_are_factored():
  # As w1 of the 800M model: 96 blocks of 64 units of d_model 1024.
  params = {'w1_MxNxD': jax.ShapeDtypeStruct((96, 64, 1024), jnp.float32)}
  state = jax.eval_shape(make_optimizer(AdafactorConfig(), {}).init, params)
  assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 96 * 64 * 1024 / 50


def test_adafactor_takes_each_layer_of_a_stack_for_itself():
  # Two layers, the second with a gradient 1000 times that of the first: in units of what both have on the average
  # the first would hardly move, and the second's update would be the only one to be clipped.
  config = AdafactorConfig(RsqrtScheduleConfig(0.1, 1), factor_from=2)
  facts = {'decoder.blocks.kernel_DxF': Facts(('layers', None, None), stack='decoder', loop='blocks')}
  rng = np.random.default_rng(0)

  def draw(*scales):
    shapes = {'kernel_DxF': (2, 3), 'bias_F': 3}
    return [{name: jnp.float32(rng.normal(size=size) * scale) for name, size in shapes.items()} for scale in scales]

  layers, gradients = draw(1, 0.1), [draw(1, 1000) for _ in range(2)]

  def stacked(layers):
    return {'decoder': {'blocks': jax.tree.map(lambda *x: jnp.stack(x), *layers)}}

  def trained(params, gradients, facts):
    optimizer = make_optimizer(config, facts)
    state = optimizer.init(params)
    for gradient in gradients:
      updates, state = optimizer.update(gradient, state, params)
      params = optax.apply_updates(params, updates)
    return params

  alone = [trained(layer, [step[index] for step in gradients], {}) for index, layer in enumerate(layers)]
  together = trained(stacked(layers), [stacked(step) for step in gradients], facts)
  for name, array in together['decoder']['blocks'].items():
    np.testing.assert_allclose(array, [layer[name] for layer in alone], rtol=1e-5)


def test_adamw_decays_matrices_and_neither_biases_nor_scales():
  names = {'norm.scale_D': False, 'norm.bias_D': False, 'kernel_DxF': True}
  facts = {name: Facts((), decays=decays) for name, decays in names.items()}
  optimizer = make_optimizer(AdamWConfig(weight_decay=0.5), facts)
  params = {'norm': {'scale_D': jnp.ones(2), 'bias_D': jnp.ones(2)}, 'kernel_DxF': jnp.ones((2, 2))}
  zero = {'norm': {'scale_D': jnp.zeros(2), 'bias_D': jnp.zeros(2)}, 'kernel_DxF': jnp.zeros((2, 2))}
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  assert (updates['norm']['scale_D'] == 0).all() and (updates['norm']['bias_D'] == 0).all()
  assert (updates['kernel_DxF'] < 0).all()
