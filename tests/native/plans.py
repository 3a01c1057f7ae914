"""Plans of a few operations, run past JAX."""

import numpy as np

from terraformer.native import layout
from terraformer.native.plan import INPUT, OUTPUT, Model, Plan

TOLERANCE = 2e-6  # of the largest number, for sums of a few hundred in float32


def random(*shape: int, seed: int = 0) -> np.ndarray:
  """Numbers N(0, 1), float32."""
  return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def opened(plan: Plan, variant: str = '', n_threads: int = 2) -> Model:
  """The plan with its tensors made."""
  return Model(plan, [tensor.make() for tensor in plan.tensors.values()], n_threads, variant)


def run(model: Model, x_BxD: np.ndarray, n_outputs: int, **arrays: np.ndarray) -> np.ndarray:
  """The output of a call."""
  batch = len(x_BxD)
  output = np.zeros((batch, n_outputs), np.float32)
  lengths = arrays.pop('lengths', np.zeros(batch, np.int32))
  model.run(batch, input=np.ascontiguousarray(x_BxD), output=output, lengths=lengths, **arrays)
  return output


def kept(plan: Plan, batch: int, n_pages: int = 1) -> dict[str, np.ndarray]:
  """An empty cache."""
  return {
    'pages': np.zeros((n_pages, batch, plan.page_bytes), np.uint8),
    'state': np.zeros((batch, plan.state_numbers), np.float32),
    'tables': np.zeros((batch, plan.table_numbers), np.int32),
  }


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
  """Fails unless the largest difference is within `tolerance` of the largest number."""
  np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def add_matrix(plan: Plan, name: str, matrix: layout.Matrix, weights_KxN: np.ndarray) -> int:
  """Packs a matrix and adds it to a plan."""
  return plan.matrix(name, matrix, lambda: layout.pack(weights_KxN, matrix))


def add_rows(plan: Plan, name: str, kind: str, rows_NxK: np.ndarray) -> int:
  """Adds a table of rows in a type to a plan."""
  rows, scales = layout.pack_rows(rows_NxK, kind)
  return plan.rows(name, kind, rows_NxK.shape, lambda: rows, lambda: scales)


def dense_plan(weights_KxN: np.ndarray, kind: str = 'float32', stretch: int = 0, **columns: int) -> Plan:
  """x weights of the input, in a type."""
  n_inputs, n_outputs = weights_KxN.shape
  plan = Plan(n_inputs, n_outputs)
  x = plan.buffer(n_inputs, segment=n_inputs if kind == 'int8' else 0)
  plan.add('mix', source=INPUT, second=INPUT, target=x)
  if kind == 'int8':
    plan.add('quantize', target=x)
  matrix = layout.Matrix(kind, n_inputs, n_outputs, stretch or layout.stretch_of(n_inputs))
  plan.add('dense', source=x, target=OUTPUT, matrix=add_matrix(plan, 'w', matrix, weights_KxN), **columns)
  return plan
