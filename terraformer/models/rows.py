"""Which parameters a token reads a few rows of, and not as a whole."""

# Name of the array -> the axis, counted from the end, of which a token reads one index of so many.
_ROW_AXES = {
  'table_VxD': -2,
  'table_PxD': -2,
  'tables_CxW': -2,
  'w1_MxNxD': -2,
  'w2_MxNxD': -2,
  'w1_ExFxD': -3,
  'w2_ExFxD': -3,
}


def row_axis(path: str) -> int | None:
  """The axis of a parameter, known by its path, of which a token reads one index; None where it reads all.

  It is counted from the end, so that it is the same for one layer and for layers that are stacked.
  """
  name = next((name for name in reversed(path.split('.')) if not name.isdigit()), path)
  return _ROW_AXES.get(name)
