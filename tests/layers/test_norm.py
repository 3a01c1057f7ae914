import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import LayerNormConfig, RMSNormConfig
from terraformer.layers.make import make_norm
from terraformer.layers.norm import LayerNorm, RMSNorm
from tests.reference.vectors import TOLERANCE, assign, load

by_norm = pytest.mark.parametrize('norm', [LayerNormConfig(), RMSNormConfig()])


def test_layer_norm_agrees_with_the_reference():
  r = load('layernorm_positional')
  layer = LayerNorm(LayerNormConfig(), 16)
  assign(layer, scale_D=r['ln_scale'], bias_D=r['ln_bias'])
  np.testing.assert_allclose(layer(r['x']), r['ln_y'], atol=TOLERANCE)


@by_norm
def test_epsilon_is_inside_the_root(norm):
  # The variance is 1e-6. An epsilon of 1e-6 inside the root doubles it; outside the root, it would hardly matter.
  x_D = jnp.asarray([1e-3, -1e-3])
  np.testing.assert_allclose(make_norm(norm, 2)(x_D), x_D / np.sqrt(2e-6), rtol=1e-4)


@by_norm
def test_bfloat16_is_normalized_in_float32(norm):
  # In bfloat16, the error of the mean of 24 such entries is larger than their differences.
  x_D = jnp.asarray(np.random.default_rng(0).normal(100, 1, 24), jnp.bfloat16)
  y_D = make_norm(norm, 24)(x_D)
  np.testing.assert_allclose(y_D, make_norm(norm, 24)(x_D.astype(jnp.float32)), atol=1e-6)


def test_rms_norm_agrees_with_the_reference():
  r = load('layernorm_positional')
  layer = RMSNorm(RMSNormConfig(), 16)
  assign(layer, scale_D=r['rms_scale'])
  np.testing.assert_allclose(layer(r['x']), r['rms_y'], atol=TOLERANCE)


@pytest.mark.parametrize(('config', 'kind'), [(LayerNormConfig(), LayerNorm), (RMSNormConfig(), RMSNorm)])
def test_a_config_makes_its_normalization(config, kind):
  layer = make_norm(config, 24)
  assert type(layer) is kind and layer.scale_D[...].shape == (24,)
