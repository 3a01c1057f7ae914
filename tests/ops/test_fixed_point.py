import jax
import jax.numpy as jnp
import numpy as np

from terraformer.ops.fixed_point import to_grid

X = np.random.default_rng(0).normal(0, 30, 10_000).astype(np.float32)


def test_the_grid_has_2_to_the_16_points_per_unit():
  found = np.asarray(to_grid(X), np.float64) * 2**16
  np.testing.assert_array_equal(found, np.rint(X.astype(np.float64) * 2**16))


def test_numbers_on_the_grid_do_not_change():
  np.testing.assert_array_equal(to_grid(to_grid(X)), to_grid(X))


def test_sums_on_the_grid_are_undone_exactly():
  # Like a residual stream of a deep stack: 1,000 additions, then the same subtractions. Off the grid, it is inexact.
  deltas_NxD = np.random.default_rng(1).normal(size=(1000, 50)).astype(np.float32)

  def there_and_back(start_D, deltas_NxD):
    end_D, _ = jax.lax.scan(lambda x_D, delta_D: (x_D + delta_D, None), start_D, deltas_NxD)
    assert end_D.dtype == jnp.float32
    return jax.lax.scan(lambda x_D, delta_D: (x_D - delta_D, None), end_D, deltas_NxD, reverse=True)[0]

  np.testing.assert_array_equal(there_and_back(to_grid(X[:50]), to_grid(deltas_NxD)), to_grid(X[:50]))
  assert np.any(there_and_back(X[:50], deltas_NxD) != X[:50])


def test_the_gradient_is_that_of_the_identity():
  cotangent = np.random.default_rng(2).normal(size=X.shape).astype(np.float32)
  np.testing.assert_array_equal(jax.grad(lambda x: (to_grid(x) * cotangent).sum())(X), cotangent)


def test_the_forward_derivative_is_that_of_the_identity():
  tangent = np.ones_like(X)
  np.testing.assert_array_equal(jax.jvp(to_grid, (X,), (tangent,))[1], tangent)
