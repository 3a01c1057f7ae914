import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.dropout import dropout

X = jnp.asarray(np.random.default_rng(0).normal(size=(7, 9, 24)) + 5, jnp.float32)


@pytest.mark.parametrize('arguments', [(0.5, None), (0.0, 0)])
def test_without_key_or_rate_nothing_is_dropped(arguments):
  rate, seed = arguments
  y = dropout(X, rate, key=None if seed is None else jax.random.key(seed))
  np.testing.assert_array_equal(y, X)


@pytest.mark.parametrize('seed', range(3))
def test_entries_are_dropped_at_the_rate(seed):
  # 1,512 samples at 0.3: 0.05 is four standard deviations.
  y = dropout(X, 0.3, key=jax.random.key(seed))
  assert abs((y == 0).mean() - 0.3) < 0.05


def test_the_other_entries_are_scaled():
  y = np.asarray(dropout(X, 0.3, key=jax.random.key(0)))
  np.testing.assert_allclose(y[y != 0], np.asarray(X)[y != 0] / 0.7, rtol=1e-6)


@pytest.mark.parametrize('shared', [(1,), (0, 1)])
def test_decisions_are_shared_only_along_the_named_axes(shared):
  dropped = np.asarray(dropout(X, 0.3, key=jax.random.key(0), shared_axes=shared) == 0)
  constant = tuple(axis for axis in range(3) if (dropped == np.take(dropped, [0], axis)).all())
  assert constant == shared


def test_a_dropped_entry_gets_no_gradient():
  y, pull_back = jax.vjp(lambda x: dropout(x, 0.3, key=jax.random.key(0)), X)
  np.testing.assert_allclose(pull_back(jnp.ones_like(y))[0], np.where(y == 0, 0, 1 / 0.7), rtol=1e-6)
