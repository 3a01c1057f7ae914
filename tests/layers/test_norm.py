import jax.numpy as jnp
import numpy as np

from terraformer.layers.norm import LayerNorm
from tests.reference.vectors import TOLERANCE, assign, load


def test_layer_norm_is_that_of_the_reference():
  r = load('layernorm_positional')
  layer = LayerNorm(16)
  assign(layer, scale_D=r['ln_scale'], bias_D=r['ln_bias'])
  np.testing.assert_allclose(layer(r['x']), r['ln_y'], atol=TOLERANCE)


def test_epsilon_stands_inside_the_root():
  # Of variance 1e-6: halved by an epsilon of 1e-6 inside the root, hardly touched by one outside.
  x_D = jnp.asarray([1e-3, -1e-3])
  np.testing.assert_allclose(LayerNorm(2)(x_D), x_D / np.sqrt(2e-6), rtol=1e-4)


def test_half_precision_is_normalised_in_single():
  # In bfloat16 the mean of 24 such entries is off by more than they differ.
  x_D = jnp.asarray(np.random.default_rng(0).normal(100, 1, 24), jnp.bfloat16)
  y_D = LayerNorm(24)(x_D)
  np.testing.assert_allclose(y_D, LayerNorm(24)(x_D.astype(jnp.float32)), atol=1e-6)
