"""Counts the floating-point operations of a program in its jaxpr: matrix products and convolutions, including loops.

XLA's own count includes the body of a loop only once, regardless of the number of iterations.
"""

import math
from typing import Any

import jax
from jax.extend import core


def count_flops(jaxpr: core.Jaxpr) -> int:
  """Returns the operations of all `dot_general` and convolutions; a multiplication with its addition counts as two.

  Args:
    jaxpr: the whole program, before it is partitioned over devices. The body of a `while` counts once, since its number
      of iterations is unknown; for a `cond`, the most expensive branch counts.
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
  """Returns the jaxprs that an equation calls once."""
  found = []
  for value in jax.tree.leaves(list(params.values()), is_leaf=lambda x: hasattr(x, 'eqns') or hasattr(x, 'jaxpr')):
    if hasattr(value, 'eqns'):
      found.append(value)
    elif hasattr(value, 'jaxpr') and hasattr(value.jaxpr, 'eqns'):
      found.append(value.jaxpr)
  return found
