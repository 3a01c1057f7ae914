"""A reader of the pickles in checkpoints that runs nothing of them.

A pickle is a program, which may import any function and call it. This reader executes the few instructions that data
need. The classes below are names to it, for which it makes values of its own; any other name is refused before
anything is made. Arrays go to disk as they are read.
"""

import dataclasses
import math
import pickletools
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from terraformer.config import UserError
from terraformer.trax.source import Source
from terraformer.trax.spill import Spill

_INLINE = 1 << 16  # bytes of an array that stays in memory
_MOST_TEXT = 1 << 20  # bytes of a string
_MOST_STEPS = 10_000_000  # instructions; a checkpoint with a long history has thousands
_MOST_KEPT = 1 << 28  # bytes of strings and small arrays together
_MOST_AXES = 32
_TYPE = re.compile(r'[fiu][1248]|b1')

ARRAY, EMPTY_ARRAY, BUFFER_ARRAY = (
  'numpy.ndarray',
  'numpy.core.multiarray._reconstruct',
  'numpy.core.numeric._frombuffer',
)
TYPE, SCALAR = 'numpy.dtype', 'numpy.core.multiarray.scalar'
LIST, DEFAULT_DICT = 'builtins.list', 'collections.defaultdict'
SHAPE, HISTORY = 'trax.shapes.ShapeDtype', 'trax.supervised.history.History'
KNOWN = frozenset((ARRAY, EMPTY_ARRAY, BUFFER_ARRAY, TYPE, SCALAR, LIST, DEFAULT_DICT, SHAPE, HISTORY))


@dataclasses.dataclass(frozen=True)
class Name:
  """A class or function that the pickle names; it is one of `KNOWN`, and never imported."""

  of: str


@dataclasses.dataclass
class Record:
  """An object of one of trax's classes.

  Attributes:
    kind: name of the class.
    fields: its attributes.
  """

  kind: str
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Type:
  """The type of an array, as numpy writes it: `f4`."""

  code: str
  order: str = '|'

  @property
  def dtype(self) -> np.dtype:
    """The numpy type."""
    return np.dtype(self.code if self.order == '|' else self.order + self.code)


@dataclasses.dataclass(frozen=True)
class Spilled:
  """Bytes on disk.

  Attributes:
    place: where they begin.
    size: how many they are.
  """

  place: int
  size: int


@dataclasses.dataclass
class Array:
  """An array; its bytes are on disk if they are many."""

  shape: tuple[int, ...] = ()
  type: Type | None = None
  is_fortran: bool = False
  data: bytes | Spilled = b''


class _DamagedError(Exception):
  """The pickle makes no sense."""


# What the machine comes to on a damaged pickle.
_SIGNS_OF_DAMAGE = (
  _DamagedError,
  IndexError,
  KeyError,
  TypeError,
  ValueError,
  AttributeError,
  OverflowError,
  struct.error,
)
_MARK = object()


def read_pickle(source: Source, spill: Spill) -> Any:
  """Returns the value of a pickle, made of Python's plain types and the classes above.

  Args:
    source: its bytes.
    spill: takes the bytes of arrays.

  Raises:
    UserError: if the pickle names anything that is not in `KNOWN`, has an instruction that data do not need, is
      damaged, or is larger than a checkpoint can be.
  """
  try:
    value = _Machine(source, spill).run()
    if source.read_or_end(1):  # at the end of the file, gzip compares its checksum
      raise _DamagedError('the file goes on behind the pickle')
    return value
  except UserError:
    raise
  except _SIGNS_OF_DAMAGE as error:
    found = str(error) if isinstance(error, _DamagedError) else f'{type(error).__name__} {error}'
    raise UserError(f'{source.name}: the pickle is damaged: {found:.200}') from error


class _Machine:
  """The stack machine of the pickle format, without the instructions that could run something."""

  def __init__(self, source: Source, spill: Spill):
    self._source, self._spill = source, spill
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}
    self._n_kept = 0

  def run(self) -> Any:
    for _ in range(_MOST_STEPS):
      code = self._source.read(1)
      if code == b'.':
        return self._pop()
      if code not in _STEPS:
        raise UserError(f'{self._source.name}: {_described(code)}, which no checkpoint needs; the file is not read')
      _STEPS[code](self)
    raise UserError(f'{self._source.name}: the pickle has more than {_MOST_STEPS:,} instructions; it is not read')

  # --- The stack ---

  def _push(self, value: Any) -> None:
    self._stack.append(value)

  def _pop(self) -> Any:
    value = self._stack.pop()
    if value is _MARK:
      raise _DamagedError('a value is missing')
    return value

  def _to_mark(self) -> list[Any]:
    values = []
    while (value := self._stack.pop()) is not _MARK:
      values.append(value)
    return values[::-1]

  def _tuple(self, n: int) -> None:
    self._push(tuple([self._pop() for _ in range(n)][::-1]))

  def _int(self, layout: str) -> int:
    return struct.unpack(layout, self._source.read(struct.calcsize(layout)))[0]

  def _float(self) -> None:
    self._push(struct.unpack('>d', self._source.read(8))[0])

  def _skip(self, size: int) -> None:
    self._source.read(size)

  # --- Bytes and text ---

  def _text(self, size: int) -> None:
    if size > _MOST_TEXT:
      raise _DamagedError(f'a text of {size:,} bytes')
    self._keep(size)
    self._push(self._source.read(size).decode())

  def _bytes(self, size: int) -> None:
    if size <= _INLINE:
      self._keep(size)
      self._push(self._source.read(size))
    else:
      self._push(Spilled(self._spill.write(self._source.pieces(size)), size))

  def _keep(self, size: int) -> None:
    self._n_kept += size
    if self._n_kept > _MOST_KEPT:
      raise UserError(f'{self._source.name}: the pickle has more than {_MOST_KEPT:,} bytes of text; it is not read')

  def _long(self) -> None:
    size = self._int('<B')
    if size > 16:
      raise _DamagedError(f'a number of {size} bytes')
    self._push(int.from_bytes(self._source.read(size), 'little', signed=True))

  # --- Containers ---

  def _append(self, values: list[Any]) -> None:
    target = self._stack[-1]
    if type(target) is not list:
      raise _DamagedError(f'values appended to {_kind(target)}')
    target.extend(values)

  def _set(self, values: list[Any]) -> None:
    target = self._stack[-1]
    if type(target) is not dict or len(values) % 2:
      raise _DamagedError(f'entries put into {_kind(target)}')
    for key, value in zip(values[::2], values[1::2], strict=True):
      if type(key) not in (str, int):
        raise _DamagedError(f'a key that is {_kind(key)}')
      target[key] = value

  # --- The memo ---

  def _remember(self, index: int) -> None:
    if self._stack[-1] is _MARK:
      raise _DamagedError('a value is missing')
    self._memo[index] = self._stack[-1]

  # --- Names, and values of the classes that they stand for ---

  def _name(self, module: str, attribute: str) -> None:
    name = f'{module}.{attribute}'
    # What numpy 2 calls these modules.
    name = name.replace('numpy._core.', 'numpy.core.').replace('__builtin__.', 'builtins.')
    if name not in KNOWN:
      raise UserError(
        f'{self._source.name}: the pickle asks for {name!r:.120}, which no checkpoint needs; nothing of it was run'
      )
    self._push(Name(name))

  def _global(self) -> None:
    module, attribute = (self._source.line(1000).decode() for _ in range(2))
    self._name(module, attribute)

  def _stack_global(self) -> None:
    attribute, module = self._pop(), self._pop()
    if type(module) is not str or type(attribute) is not str:
      raise _DamagedError('a class that is not named by texts')
    self._name(module, attribute)

  def _reduce(self) -> None:
    arguments, name = self._pop(), self._pop()
    if type(name) is not Name or type(arguments) is not tuple:
      raise _DamagedError(f'a call of {_kind(name)}')
    make = _MAKERS.get(name.of)
    if make is None:
      raise _DamagedError(f'a call of {name.of}')
    self._push(make(*arguments))

  def _new(self) -> None:
    arguments, name = self._pop(), self._pop()
    if type(name) is not Name or name.of not in (SHAPE, HISTORY) or arguments != ():
      raise _DamagedError(f'an object of {name.of if type(name) is Name else _kind(name)}')
    self._push(Record(name.of))

  def _build(self) -> None:
    state, target = self._pop(), self._stack[-1]
    if type(target) is Array:
      _version, shape, kind, is_fortran, data = state
      _fill(target, shape, kind, is_fortran, data)
    elif type(target) is Type:
      if state[1] not in ('<', '>', '|', '=') or any(state[2:5]):
        raise _DamagedError('an array of records')
      target.order = state[1]
    elif type(target) is Record:
      fields = state[1] if type(state) is tuple else state  # attributes in slots are the second half of a pair
      if type(fields) is not dict:
        raise _DamagedError(f'a state that is {_kind(fields)}')
      target.fields = fields
    else:
      raise _DamagedError(f'a state for {_kind(target)}')


def _make_array(kind: Any, shape: Any, code: Any) -> Array:
  if kind != Name(ARRAY):
    raise _DamagedError('an array of another class')
  return Array()


def _make_type(code: Any, *_: Any) -> Type:
  if type(code) is not str or not _TYPE.fullmatch(code):
    raise _DamagedError(f'an array of type {code!r:.40}')
  return Type(code)


def _make_scalar(kind: Any, data: Any) -> int | float | bool:
  if type(kind) is not Type or type(data) is not bytes or len(data) != kind.dtype.itemsize:
    raise _DamagedError('a number without its bytes')
  return np.frombuffer(data, kind.dtype)[0].item()


def _make_buffer_array(data: Any, kind: Any, shape: Any, order: Any) -> Array:
  array = Array()
  _fill(array, shape, kind, order == 'F', data)
  return array


def _make_default_dict(factory: Any = None) -> dict:
  if factory != Name(LIST):
    raise _DamagedError('a defaultdict of anything but lists')
  return {}


def _fill(array: Array, shape: Any, kind: Any, is_fortran: Any, data: Any) -> None:
  if type(shape) is not tuple or len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
    raise _DamagedError(f'an array of shape {shape!r:.80}')
  if type(kind) is not Type or type(data) not in (bytes, Spilled):
    raise _DamagedError('an array without its bytes')
  expected, found = math.prod(shape) * kind.dtype.itemsize, data.size if type(data) is Spilled else len(data)
  if expected != found:
    raise _DamagedError(f'an array of {list(shape)} with {found:,} bytes, of {expected:,}')
  array.shape, array.type, array.is_fortran, array.data = shape, kind, bool(is_fortran), data


def _kind(value: Any) -> str:
  return value.of if type(value) is Name else type(value).__name__


def _described(code: bytes) -> str:
  known = pickletools.code2op.get(code.decode('latin-1'))
  return f'the pickle has the instruction {known.name}' if known else 'this is not a pickle, or it is damaged'


_MAKERS: dict[str, Callable[..., Any]] = {
  EMPTY_ARRAY: _make_array,
  BUFFER_ARRAY: _make_buffer_array,
  TYPE: _make_type,
  SCALAR: _make_scalar,
  DEFAULT_DICT: _make_default_dict,
}

# The instructions, by the byte that stands for each.
_STEPS: dict[bytes, Callable[[_Machine], None]] = {
  b'\x80': lambda m: m._skip(1),  # PROTO
  b'\x95': lambda m: m._skip(8),  # FRAME
  b'(': lambda m: m._push(_MARK),
  b'N': lambda m: m._push(None),
  b'\x88': lambda m: m._push(True),
  b'\x89': lambda m: m._push(False),
  b'J': lambda m: m._push(m._int('<i')),
  b'K': lambda m: m._push(m._int('<B')),
  b'M': lambda m: m._push(m._int('<H')),
  b'G': _Machine._float,
  b'\x8a': _Machine._long,
  b'\x8c': lambda m: m._text(m._int('<B')),
  b'X': lambda m: m._text(m._int('<I')),
  b'C': lambda m: m._bytes(m._int('<B')),
  b'B': lambda m: m._bytes(m._int('<I')),
  b'\x8e': lambda m: m._bytes(m._int('<Q')),
  b'\x96': lambda m: m._bytes(m._int('<Q')),  # a bytearray
  b']': lambda m: m._push([]),
  b'}': lambda m: m._push({}),
  b')': lambda m: m._push(()),
  b'\x85': lambda m: m._tuple(1),
  b'\x86': lambda m: m._tuple(2),
  b'\x87': lambda m: m._tuple(3),
  b't': lambda m: m._push(tuple(m._to_mark())),
  b'a': lambda m: m._append([m._pop()]),
  b'e': lambda m: m._append(m._to_mark()),
  b's': lambda m: m._set([m._pop(), m._pop()][::-1]),
  b'u': lambda m: m._set(m._to_mark()),
  b'\x94': lambda m: m._remember(len(m._memo)),
  b'q': lambda m: m._remember(m._int('<B')),
  b'r': lambda m: m._remember(m._int('<I')),
  b'h': lambda m: m._push(m._memo[m._int('<B')]),
  b'j': lambda m: m._push(m._memo[m._int('<I')]),
  b'c': _Machine._global,
  b'\x93': _Machine._stack_global,
  b'R': _Machine._reduce,
  b'\x81': _Machine._new,
  b'b': _Machine._build,
}
