"""A name that says a wrong shape is caught, wherever a function binds it."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.models import make  # noqa: F401 (and with it modules of all parts)
from terraformer.ops import attention
from tests import shapes

SOURCE = '''
import jax
import jax.numpy as jnp


def add(x_BxT, y_BxT):
  """Sums."""
  return x_BxT + y_BxT


def total(x_xD, weight_D=None):
  sum_x1 = x_xD.sum(-1, keepdims=True)
  return sum_x1


def after(x_BxTx):
  y_BxT = x_BxTx.sum(-1)
  return y_BxT


def rows(x_BxT):
  for row_T in x_BxT:
    row_T.sum()


def pair(x_BxT):
  first_B, (second_B, n) = x_BxT[:, 0], (x_BxT[1], 3)
  return first_B, second_B, n


def within(x_BxT):
  def one(row_T):
    doubled_T = jnp.concatenate([row_T, row_T])
    return doubled_T

  return jax.vmap(one)(x_BxT)


class Layer:
  scale_BxT = None

  def __call__(self, x_BxT, *, mask_BxT=None):
    self.last_B = x_BxT
    x_BxT += 1 if mask_BxT is None else mask_BxT
    return x_BxT
'''


@pytest.fixture(scope='module')
def module():
  names = {shapes._SEEN_TYPE: shapes.Sizes}
  exec(compile(shapes.instrument(SOURCE, 'example'), 'example', 'exec'), names)
  return names


def _zeros(*shape):
  return np.zeros(shape)


TRUE = {
  'equal sizes': ('add', _zeros(2, 3), _zeros(2, 3)),
  'an axis that broadcasts': ('add', _zeros(2, 3), _zeros(1, 3)),
  'what is no array': ('add', 1, 2.0),
  'any axes before': ('total', _zeros(2, 3, 4, 5), _zeros(5)),
  'no axes before': ('total', _zeros(5)),
  'any axes behind': ('after', _zeros(2, 3, 4)),
}
LIES = {
  'too few axes': (('add', _zeros(3), _zeros(2, 3)), r'example\.add: x_BxT has the shape \(3,\)'),
  'too many axes': (('add', _zeros(2, 3), _zeros(1, 2, 3)), r'add: y_BxT has the shape \(1, 2, 3\)'),
  'two sizes of a letter': (('add', _zeros(2, 3), _zeros(2, 4)), r'y_BxT .* \(2, 4\), but T is 3 in x_BxT'),
  'the axis at the end': (('total', _zeros(2, 3), _zeros(2)), 'weight_D .* but D is 3 in x_xD'),
  'a local name': (('after', _zeros(2, 3, 4, 5)), r'y_BxT has the shape \(2, 3, 4\)'),
  'a name of a loop': (('rows', _zeros(2, 3, 4)), r'x_BxT has the shape \(2, 3, 4\)'),
  'a name within a tuple': (('pair', _zeros(2, 3)), r'second_B has the shape \(3,\), but B is 2'),
  'a function within another': (('within', _zeros(2, 3)), r'within\.one: doubled_T .* but T is 3 in row_T'),
}


@pytest.mark.parametrize('name', TRUE)
def test_a_name_that_says_the_shape_passes(module, name):
  function, *arguments = TRUE[name]
  module[function](*arguments)


@pytest.mark.parametrize('name', LIES)
def test_a_name_that_says_another_shape_is_caught(module, name):
  (function, *arguments), message = LIES[name]
  with pytest.raises(shapes.ShapeError, match=message):
    module[function](*arguments)


@pytest.mark.parametrize('mask', [_zeros(2, 4), _zeros(3)])
def test_parameters_of_methods_are_checked(module, mask):
  with pytest.raises(shapes.ShapeError, match='Layer.__call__: mask_BxT'):
    module['Layer']()(_zeros(2, 3), mask_BxT=mask)


def test_a_name_that_is_bound_anew_is_checked_again(module):
  with pytest.raises(shapes.ShapeError, match=r'__call__: x_BxT has the shape \(2, 3\), but B is 4'):
    module['Layer']()(_Grows(_zeros(4, 3)))


class _Grows:
  """An array that another shape comes of."""

  def __init__(self, array):
    self.shape = array.shape

  def __iadd__(self, _):
    return _zeros(2, 3)


def test_a_literal_size_is_checked():
  sizes = shapes.Sizes('f')
  with pytest.raises(shapes.ShapeError, match=r'f: now_Bx1 has the shape \(2, 3\)'):
    sizes.see('now_Bx1', _zeros(2, 3))


def test_a_traced_function_is_checked_while_it_is_traced(module):
  array = jax.ShapeDtypeStruct((2, 3), jnp.float32)
  with pytest.raises(shapes.ShapeError, match='doubled_T'):
    jax.eval_shape(module['within'], array)


@pytest.mark.parametrize('part', shapes.PARTS)
def test_these_tests_check_every_module_of_the_package(part):
  loaders = {
    name: type(module.__spec__.loader)
    for name, module in sys.modules.items()
    if name.startswith(f'terraformer.{part}.') and module.__spec__
  }
  assert loaders and set(loaders.values()) == {shapes._Loader}


def test_a_function_of_the_package_that_gets_a_wrong_shape_fails():
  array = jnp.zeros((2, 3, 4, 5))
  with pytest.raises(shapes.ShapeError, match='dot_product_attention: k_BxHxPxK'):
    attention.dot_product_attention(array, array[..., :4], array[..., :4], None)


def test_a_traceback_shows_the_line_that_binds_the_name(module):
  with pytest.raises(shapes.ShapeError) as caught:
    module['after'](_zeros(2, 3, 4, 5))
  line = caught.traceback[-2].lineno  # from 0
  assert SOURCE.splitlines()[line].strip() == 'y_BxT = x_BxTx.sum(-1)'
