"""A plan: the table of operations that the library runs, with its buffers and weights.

`csrc/types.h` and the kernels document the operations. `csrc/plan.cc` checks a plan, and `NativeError` carries its
message.
"""

import ctypes
import dataclasses
import weakref
from collections.abc import Callable

import numpy as np

from terraformer.native import layout
from terraformer.native.library import Call, library

_MAGIC, _VERSION = 0x4C50524F46415254, 2
KINDS = (
  'norm',
  'gate',
  'dense',
  'history',
  'attend',
  'pick',
  'gather',
  'recur',
  'mix',
  'quantize',
  'attend_hashed',
)
INPUT, OUTPUT = 0, 1
# The columns of an operation, and their defaults.
_COLUMNS = {
  'kind': 0,
  'meets': 1,
  'source': -1,
  'second': -1,
  'target': -1,
  'addend': -1,
  'matrix': -1,
  'table': -1,
  'scale': -1,
  'bias': -1,
  'rows': 1,
  'offset': 0,
  'second_offset': 0,
  'step': 0,
  'relu': 0,
  'adds': 0,
  'to_grid': 0,
  'root_mean_square': 0,
  'tanh': 0,
  'by_gain': 0,
  'heads': 0,
  'head_width': 0,
  'page_offset': 0,
  'cache_type': 0,
  'of_memory': 0,
  'shared_keys': 0,
  'key': -1,
  'value': -1,
  'state_offset': 0,
  'block': 0,
  'n_blocks': 0,
  'pick': -1,
  'directions': -1,
  'factors': -1,
  'rounds': 0,
  'slots': 0,
  'table_offset': 0,
}


class NativeError(Exception):
  """The library refuses a plan or a call; the message is the library's."""


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of a plan, made on demand.

  Attributes:
    facts: its row in the plan's tables: type and sizes.
    make: returns the array.
  """

  facts: tuple[int, ...]
  make: Callable[[], np.ndarray]


class Plan:
  """A plan in progress. Each method that adds something returns its number in the plan.

  Attributes:
    n_picks: number of `pick` operations so far.
    page_bytes, memory_page_bytes: bytes per text in a page of the cache and of the memory.
    state_numbers: float32 numbers per text in the state.
    table_numbers: int32 numbers per text in the tables of hashed attention.
  """

  def __init__(self, n_inputs: int, n_outputs: int):
    self._buffers: list[tuple[int, int, int]] = [(1, n_inputs, 0), (1, n_outputs, 0)]
    self._matrices: dict[str, Tensor] = {}
    self._tables: dict[str, Tensor] = {}
    self._vectors: dict[str, Tensor] = {}
    self._operations: list[tuple[int, ...]] = []
    self.n_picks = 0
    self.page_bytes = self.memory_page_bytes = self.state_numbers = self.table_numbers = 0

  def buffer(self, width: int, rows: int = 1, segment: int = 0) -> int:
    """Adds a buffer of `rows` x `width` float32 per text; with a segment, also in 16 bits with a scale per segment."""
    self._buffers.append((rows, width, segment))
    return len(self._buffers) - 1

  def matrix(self, name: str, matrix: layout.Matrix, packed: Callable[[], np.ndarray]) -> int:
    """Adds a packed matrix."""
    facts = (layout.TYPES.index(matrix.type), matrix.n_inputs, matrix.n_outputs, matrix.stretch)
    return _put(self._matrices, name, Tensor(facts, packed))

  def rows(
    self, name: str, kind: str, shape: tuple[int, int], rows: Callable[[], np.ndarray], scales: Callable[[], np.ndarray]
  ) -> int:
    """Adds a table whose rows are read one by one; `scales`, one a row, are for rows of 8 bits alone."""
    scale = self.vector(f'{name}.scales', shape[0], scales) if kind == 'int8' else -1
    return _put(self._tables, name, Tensor((layout.TYPES.index(kind), *shape, scale), rows))

  def vector(self, name: str, size: int, numbers: Callable[[], np.ndarray]) -> int:
    """Adds `size` float32 numbers."""
    return _put(self._vectors, name, Tensor((size,), lambda: np.ravel(numbers()).astype(np.float32, copy=False)))

  def page(self, kind: str, n_heads: int, head_width: int, of_memory: bool = False, by_record: bool = False) -> int:
    """Reserves room for the heads of a layer in each page; returns its offset in bytes.

    Args:
      kind: type of the numbers.
      n_heads, head_width: the heads.
      of_memory: whether the page is one of the memory.
      by_record: whether positions are read one by one, by hashed attention.
    """
    at = self.memory_page_bytes if of_memory else self.page_bytes
    head = layout.PAGE * layout.record_bytes(kind, head_width) if by_record else layout.head_bytes(kind, head_width)
    size = -(-n_heads * head // 64) * 64
    if of_memory:
      self.memory_page_bytes += size
    else:
      self.page_bytes += size
    return at

  def state(self, size: int) -> int:
    """Reserves `size` numbers of the state; returns their offset."""
    self.state_numbers += size
    return self.state_numbers - size

  def table(self, size: int) -> int:
    """Reserves `size` numbers of the tables; returns their offset."""
    self.table_numbers += size
    return self.table_numbers - size

  def add(self, kind: str, **columns: int) -> None:
    """Adds an operation, after which threads synchronize unless `meets=0`."""
    values = _COLUMNS | {'kind': KINDS.index(kind) + 1} | columns
    if values.keys() != _COLUMNS.keys():
      raise TypeError(f'{kind}: there are no columns {sorted(values.keys() - _COLUMNS.keys())}')
    self._operations.append(tuple(int(value) for value in values.values()))

  @property
  def tensors(self) -> dict[str, Tensor]:
    """All tensors by name, in the order of the plan's tables."""
    return self._matrices | self._tables | self._vectors

  def numbers(self) -> np.ndarray:
    """The plan as the library reads it, int64."""
    tables = (self._buffers, self._matrices, self._tables, self._vectors, self._operations)
    sizes = [self.page_bytes, self.memory_page_bytes, self.state_numbers, self.table_numbers]
    head = [_MAGIC, _VERSION, *map(len, tables), *sizes]
    rows = [self._buffers, *([tensor.facts for tensor in table.values()] for table in tables[1:4]), self._operations]
    return np.array([*head, *(number for table in rows for row in table for number in row)], np.int64)


def _put(tensors: dict[str, Tensor], name: str, tensor: Tensor) -> int:
  if name in tensors:
    raise ValueError(f'{name}: the plan already has a tensor of this name')
  tensors[name] = tensor
  return len(tensors) - 1


class Model:
  """A plan that the library has opened.

  Attributes:
    number: names the model in calls.
    n_threads: threads that a call runs on.
    variant: the code that runs, one of `library.variants`.
  """

  def __init__(self, plan: Plan | np.ndarray, tensors: list[np.ndarray], n_threads: int = 0, variant: str = ''):
    """Opens a plan.

    Args:
      plan: the plan, or its numbers.
      tensors: the plan's tensors in its order, contiguous.
      n_threads: number of threads; 0 means one per core, which is also the maximum.
      variant: one of `library.variants`; the fastest by default.

    Raises:
      NativeError: if the library refuses it.
    """
    numbers = plan.numbers() if isinstance(plan, Plan) else np.ascontiguousarray(plan, np.int64)
    self._tensors = [np.ascontiguousarray(tensor) for tensor in tensors]  # the library reads them from now on
    pointers = np.array([tensor.ctypes.data for tensor in self._tensors], np.uint64)
    sizes = np.array([tensor.nbytes for tensor in self._tensors], np.int64)
    message = ctypes.create_string_buffer(512)
    loaded = library()
    self.number = loaded.native_open(
      numbers.ctypes.data,
      numbers.size,
      pointers.ctypes.data,
      sizes.ctypes.data,
      len(sizes),
      n_threads,
      variant.encode(),
      ctypes.addressof(message),
      len(message),
    )
    if not self.number:
      raise NativeError(message.value.decode())
    self.n_threads = loaded.native_threads(self.number)
    self.variant = loaded.native_variant(self.number).decode()
    self.close = weakref.finalize(self, loaded.native_close, self.number)

  def run(self, batch: int, **arrays: np.ndarray) -> None:
    """Runs one call without JAX. The arguments are those of `csrc/model.h`, contiguous; the library writes to some.

    Raises:
      NativeError: if the library refuses them.
    """
    call = Call(batch=batch, **{name: array.ctypes.data for name, array in arrays.items()})
    call.n_pages = len(arrays['pages']) if 'pages' in arrays else 0
    call.n_memory_pages = len(arrays['memory']) if 'memory' in arrays else 0
    message = ctypes.create_string_buffer(512)
    if library().native_run(self.number, ctypes.byref(call), ctypes.addressof(message), len(message)):
      raise NativeError(message.value.decode())
