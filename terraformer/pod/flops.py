"""Floating-point operations of a program, counted in its jaxpr: matrix products and convolutions, loops included.

XLA's own count takes the body of a loop once, however often it turns.
"""

import math
from typing import Any

import jax
from jax.extend import core


def count_flops(jaxpr: core.Jaxpr) -> int:
  """Operations of all `dot_general` and convolutions; two for a multiplication with its addition.

  Args:
    jaxpr: of the whole program, before it is divided between devices. A `while` whose turns are not known counts once,
      of the branches of a `cond` the dearest.
  """
  return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    (contracting, _), _ = params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracting)
  if name == 'conv_general_dilated':
    kernel = equation.invars[1].aval
    outputs_axis = params['dimension_numbers'].rhs_spec[0]
    return 2 * equation.outvars[0].aval.size * kernel.size // kernel.shape[outputs_axis]
  if name == 'scan':
    return params['length'] * count_flops(params['jaxpr'].jaxpr)
  if name == 'cond':
    return max(count_flops(branch.jaxpr) for branch in params['branches'])
  return sum(map(count_flops, _inner(params)))


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
  """Jaxprs that an equation calls once."""
  found = []
  for value in jax.tree.leaves(list(params.values()), is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')):
    if hasattr(value, 'eqns'):
      found.append(value)
    elif hasattr(value, 'jaxpr') and hasattr(value.jaxpr, 'eqns'):
      found.append(value.jaxpr)
  return found
