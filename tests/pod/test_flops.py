"""Counted by hand: a product of (m, k) and (k, n) takes 2 m k n operations."""

import jax
import jax.numpy as jnp
import pytest

from terraformer.pod.flops import count_flops

A, B = jax.ShapeDtypeStruct((3, 5), jnp.float32), jax.ShapeDtypeStruct((5, 7), jnp.float32)
PRODUCT = 2 * 3 * 5 * 7


def _count(function, *arguments):
  return count_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _loop(a, b):
  return jax.lax.scan(lambda total, _: (total + a @ b, None), jnp.zeros((3, 7)), None, length=4)[0]


@pytest.mark.parametrize(
  ('function', 'expected'),
  [
    (lambda a, b: a @ b, PRODUCT),
    (jax.jit(lambda a, b: a @ b), PRODUCT),
    (jax.checkpoint(lambda a, b: a @ b), PRODUCT),
    (_loop, 4 * PRODUCT),
    (lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: jnp.zeros((3, 7))), PRODUCT),
    (lambda a, b: jnp.einsum('ik,kj->ij', a, b) + jnp.sin(a).sum(), PRODUCT),
  ],
)
def test_products_are_counted_wherever_they_stand(function, expected):
  assert _count(function, A, B) == expected


def test_a_convolution_takes_two_operations_a_tap_and_output():
  image, kernel = jax.ShapeDtypeStruct((2, 9, 8, 3), jnp.float32), jax.ShapeDtypeStruct((3, 1, 3, 6), jnp.float32)
  convolve = lambda x, w: jax.lax.conv_general_dilated(  # noqa: E731
    x, w, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  assert _count(convolve, image, kernel) == 2 * (2 * 7 * 8 * 6) * (3 * 1 * 3)


def test_the_backward_pass_of_a_product_takes_two():
  assert _count(jax.grad(lambda a, b: (a @ b).sum(), argnums=(0, 1)), A, B) == 3 * PRODUCT
