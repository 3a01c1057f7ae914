"""The rearranged products equal the plain ones, and so do their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.products import multiplicative, times_rows


def normal(*shapes):
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize('leading', [(), (5,), (2, 5), (2, 3, 5)])
def test_times_rows_and_its_gradients_equal_those_of_einsum(leading):
  x, w, g = normal((*leading, 6), (11, 6), (*leading, 11))
  y, pull = jax.vjp(times_rows, x, w)
  expected, pull_expected = jax.vjp(lambda x, w: jnp.einsum('...D,FD->...F', x, w), x, w)
  np.testing.assert_allclose(y, expected, atol=1e-6)
  for one, other in zip(pull(g), pull_expected(g), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize('n_vectors', [1, 4, 5, 40])
def test_few_and_many_vectors_have_the_same_product(n_vectors):
  x, gating, projection, g = normal((n_vectors, 12), (3, 12), (12, 4), (n_vectors, 3, 4))

  def plainly(x, gating, projection):
    return jnp.einsum('TD,SD,DW->TSW', x, gating, projection)

  y, pull = jax.vjp(multiplicative, x, gating, projection)
  expected, pull_expected = jax.vjp(plainly, x, gating, projection)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  for one, other in zip(pull(g), pull_expected(g), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4)
