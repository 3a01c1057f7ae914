"""B 2, T 7, D 3."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.ops.chunks import in_chunks

X_BXTXD = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
TOKENS_BXT = np.random.default_rng(1).integers(0, 9, (2, 7))
# Neither 2 nor 3 divides 7; chunks of 7 or more take one call.
by_chunk = pytest.mark.parametrize('chunk', [0, 1, 2, 3, 6, 7, 100])


def _function(index, x_and_tokens):
  x_BxCxD, tokens_BxC = x_and_tokens
  return {'y_BxCxD': jnp.sin(x_BxCxD) * tokens_BxC[..., None], 'sum_BxC': x_BxCxD.sum(-1)}


@by_chunk
def test_results_equal_those_of_all_tokens_at_once(chunk):
  found = in_chunks(_function, chunk, 7)((X_BXTXD, TOKENS_BXT))
  for name, expected in _function(0, (X_BXTXD, TOKENS_BXT)).items():
    np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)


@by_chunk
def test_gradients_equal_those_of_all_tokens_at_once(chunk):
  @functools.partial(jax.grad, argnums=(0, 1))
  def gradients(x_BxTxD, weight, chunk):
    scaled = lambda index, x: _function(index, (x[0] * weight, x[1]))  # noqa: E731
    return sum((jnp.cos(y) * y).sum() for y in in_chunks(scaled, chunk, 7)((x_BxTxD, TOKENS_BXT)).values())

  for one, other in zip(gradients(X_BXTXD, 0.7, chunk), gradients(X_BXTXD, 0.7, 0), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('chunk', 'expected'), [(0, [0] * 7), (2, [0, 0, 1, 1, 2, 2, 3]), (7, [0] * 7)])
def test_a_function_gets_the_index_of_its_chunk(chunk, expected):
  index_BxT = in_chunks(lambda index, x_BxC: jnp.full_like(x_BxC, index), chunk, 7)(TOKENS_BXT)
  np.testing.assert_array_equal(index_BxT, [expected] * 2)


def test_none_among_the_arrays_stays_none():
  y_BxTxD, none = in_chunks(lambda _, x: (x[0] + 1, x[1]), 3, 7)((X_BXTXD, None))
  np.testing.assert_array_equal(y_BxTxD, X_BXTXD + 1)
  assert none is None


def _temporary_bytes(chunk):
  """Returns the temporary memory of a gradient of a function with 4,096 intermediate numbers for each of 512 tokens."""

  def loss(weight_DxF, x_BxTxD):
    wide = lambda _, x_BxCxD: jnp.square(jnp.sin(x_BxCxD @ weight_DxF)).sum(-1)  # noqa: E731
    return in_chunks(wide, chunk, x_BxTxD.shape[1])(x_BxTxD).sum()

  shapes = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 4096), (1, 512, 8)))
  return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def test_intermediate_results_are_in_memory_for_only_one_chunk():
  # For all tokens at once, they take several times 8 MB; in chunks of 16, 256 KB.
  assert _temporary_bytes(0) > 512 * 4096 * 4 > 4 * _temporary_bytes(16)
