"""Parses a compiled TPU program and counts the bytes that it moves in memory and in collectives, including loops."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_TYPE_BYTES = {'pred': 1, 's4': 0.5, 'u4': 0.5, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2}
_TYPE_BYTES |= {'s32': 4, 'u32': 4, 'f32': 4, 's64': 8, 'u64': 8, 'f64': 8, 'c64': 8}
_ARRAY = re.compile(r'\b([a-z]+\d*)\[([\d,]*)\](?:\{([^}]*)\})?')
_COMPUTATION = re.compile(r'^(ENTRY )?%([\w.-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%([\w.-]+) = (.*?) ([\w-]+)\((.*)$')
_COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')
# These instructions move no data; they only name or wrap results of others.
_FREE = {
  'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'partition-id', 'replica-id', 'iota',
  'opt-barrier',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Moved:
  """The data that one device moves in one run of a program.

  Attributes:
    memory_bytes: bytes read from and written to the device's memory.
    collective_bytes: bytes sent to other devices, by kind; an all-reduce sends its operand twice.
    collectives: number of collectives, by kind.
  """

  memory_bytes: float
  collective_bytes: dict[str, float]
  collectives: dict[str, int]


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  type: str
  opcode: str
  rest: str
  is_root: bool

  @functools.cached_property
  def operands(self) -> list[str]:
    """Names of the operands, which are before the closing parenthesis."""
    depth, end = 1, len(self.rest)
    for index, character in enumerate(self.rest):
      depth += (character == '(') - (character == ')')
      if not depth:
        end = index
        break
    return re.findall(r'%([\w.-]+)', self.rest[:end])

  @property
  def kind(self) -> str:
    """The operation, without the suffix of an asynchronous start."""
    return self.opcode.removesuffix('-start')

  @property
  def channel(self) -> str:
    """The channel, which identifies a collective even if its parts are in different places."""
    found = re.search(r'channel_id=(\d+)', self.rest)
    return found[1] if found else self.name

  def branches(self) -> list[str]:
    """Returns the computations of a conditional."""
    return re.findall(r'%([\w.-]+)', self.rest.split('branch_computations=')[-1].split('}')[0])

  def called(self, attribute: str) -> str | None:
    """Returns the computation that an attribute names."""
    found = re.search(rf'\b{attribute}=%([\w.-]+)', self.rest)
    return found and found[1]


def shapes(type_text: str) -> list[tuple[str, tuple[int, ...]]]:
  """Returns the element types and shapes of the arrays in a type."""
  return [(dtype, tuple(int(size) for size in dims.split(',') if size)) for dtype, dims, _ in _ARRAY.findall(type_text)]


def hbm_bytes(type_text: str) -> float:
  """Returns the bytes of the arrays in a type that are in the device's main memory, not in another space (`S(n)`)."""
  total = 0.0
  for dtype, dims, layout in _ARRAY.findall(type_text):
    if dtype in _TYPE_BYTES and 'S(' not in layout:
      total += _TYPE_BYTES[dtype] * math.prod(int(size) for size in dims.split(',') if size)
  return total


def all_bytes(type_text: str) -> float:
  """Returns the bytes of the arrays in a type, in any memory space."""
  return hbm_bytes(re.sub(r'S\(\d+\)', '', type_text))


class Program:
  """A compiled program, parsed from XLA's text."""

  def __init__(self, text: str):
    self._computations: dict[str, list[_Instruction]] = {}
    current: list[_Instruction] = []
    for line in text.splitlines():
      if head := _COMPUTATION.match(line):
        current = self._computations.setdefault(head[2], [])
        if head[1]:
          self._entry = head[2]
      elif found := _INSTRUCTION.match(line):
        current.append(_Instruction(found[2], found[3], found[4], found[5], bool(found[1])))

  def moved(self) -> Moved:
    """Returns the data that one run moves; the body of a loop counts for each iteration."""
    counts: collections.Counter = collections.Counter()
    self._add(self._entry, 1, counts, set())
    kinds = [kind for kind in _COLLECTIVES if counts['n ' + kind]]
    return Moved(
      counts['memory'], {kind: counts['bytes ' + kind] for kind in kinds}, {kind: counts['n ' + kind] for kind in kinds}
    )

  def gathers_outside_loops(self) -> list[str]:
    """Returns the types of gathers that run once per program, not in each iteration of a loop."""
    found = {}
    for one in self._reachable(self._entry, into_loops=False):
      for inner in [one, *self._fused(one)]:
        if inner.kind == 'all-gather':
          found[inner.channel] = inner.type
    return list(found.values())

  def arrays(self) -> collections.Counter[tuple[str, tuple[int, ...]]]:
    """Returns the number of arrays in memory for each type and shape; arrays inside a fusion are not in memory."""
    found: collections.Counter = collections.Counter()
    for one in self._reachable(self._entry, into_loops=True):
      if one.opcode not in _FREE and one.opcode not in ('while', 'conditional', 'call') and '-done' not in one.opcode:
        found.update(shapes(one.type))
    return found

  def _reachable(self, computation: str, into_loops: bool) -> Iterator[_Instruction]:
    """Yields the instructions whose results are in memory."""
    for one in self._computations[computation]:
      yield one
      if one.opcode == 'while' and into_loops:
        yield from self._reachable(one.called('body'), into_loops)
      elif one.opcode in ('call', 'async-start'):
        yield from self._reachable(one.called('to_apply') or one.called('calls'), into_loops)
      elif one.opcode == 'conditional':
        for branch in one.branches():
          yield from self._reachable(branch, into_loops)

  def _fused(self, fusion: _Instruction) -> Iterator[_Instruction]:
    """Yields the instructions inside a fusion and its nested fusions; none for other instructions."""
    for one in self._computations.get(fusion.called('calls'), []) if fusion.opcode == 'fusion' else ():
      yield one
      yield from self._fused(one)

  def _add(self, computation: str, times: int, counts: collections.Counter, seen: set[str]) -> None:
    types = {one.name: one.type for one in self._computations[computation]}
    for one in self._computations[computation]:
      if one.opcode == 'while':
        self._add(one.called('body'), times * self._turns(one), counts, seen)
      elif one.opcode in ('call', 'async-start'):
        self._add(one.called('to_apply') or one.called('calls'), times, counts, seen)
      elif one.opcode == 'conditional':
        for branch in one.branches():
          self._add(branch, times, counts, seen)
      elif one.opcode not in _FREE and not one.opcode.endswith('-done'):
        counts['memory'] += times * self._memory_bytes(one, types)
        self._add_collective(one, types, times, counts, seen)
        self._add_fused_collectives(one, times, counts, seen)

  def _add_fused_collectives(self, fusion: _Instruction, times: int, counts, seen: set[str]) -> None:
    """Counts collectives inside fusions: TPU programs split a collective into parts of one channel, in the fusions that
    hide it."""
    name = fusion.called('calls') if fusion.opcode == 'fusion' else None
    inner = self._computations.get(name, [])
    types = {one.name: one.type for one in inner}
    for one in inner:
      self._add_collective(one, types, times, counts, seen, scattered='all-reduce-scatter' in name)
      self._add_fused_collectives(one, times, counts, seen)

  def _add_collective(self, one: _Instruction, types, times: int, counts, seen: set[str], scattered=False) -> None:
    if one.kind not in _COLLECTIVES or one.opcode.endswith('-done') or one.channel in seen:
      return
    seen.add(one.channel)
    read = sum(all_bytes(types.get(name, '')) for name in one.operands)
    # The result of a start includes its operand.
    written = all_bytes(one.type) - (read if one.opcode.endswith('-start') else 0)
    kind = 'reduce-scatter' if scattered and one.kind == 'all-reduce' else one.kind
    counts['bytes ' + kind] += times * {'all-gather': written, 'all-reduce': 2 * read}.get(kind, read)
    counts['n ' + kind] += times

  def _memory_bytes(self, one: _Instruction, types: dict[str, str]) -> float:
    if one.opcode == 'fusion':
      return self._fusion_bytes(one, types)
    if one.opcode in ('dynamic-slice', 'gather'):
      return 2 * hbm_bytes(one.type)
    if one.opcode == 'dynamic-update-slice':
      return 2 * hbm_bytes(types.get(one.operands[1], ''))
    if one.opcode.endswith('-start'):
      return hbm_bytes(one.type)  # the operand is part of the result
    return hbm_bytes(one.type) + sum(hbm_bytes(types.get(name, '')) for name in one.operands)

  def _fusion_bytes(self, one: _Instruction, types: dict[str, str]) -> float:
    """Returns the bytes that a fusion moves. If it slices an operand or gathers rows, only these count; if it updates a
    result in place, only the update counts."""
    name = one.called('calls')
    read = sum(
      min(hbm_bytes(types.get(operand, '')), self._read(name, index)) for index, operand in enumerate(one.operands)
    )
    roots = [part for part in self._computations.get(name, []) if part.is_root]
    if roots and roots[0].opcode == 'dynamic-update-slice':
      inner_types = {part.name: part.type for part in self._computations[name]}
      return read + min(hbm_bytes(one.type), all_bytes(inner_types.get(roots[0].operands[1], '')))
    return read + hbm_bytes(one.type)

  def _read(self, computation: str, index: int) -> float:
    """Returns the bytes that a fusion's body reads of its parameter number `index`."""
    inner = self._computations.get(computation, [])
    names = [one.name for one in inner if one.opcode == 'parameter' and one.rest.startswith(f'{index})')]
    total = 0.0
    while names:
      name = names.pop()
      for user in inner:
        for position, operand in enumerate(user.operands):
          if operand != name:
            continue
          if user.opcode == 'bitcast':
            names.append(user.name)
          elif user.opcode == 'fusion':
            total += self._read(user.called('calls'), position)
          elif user.opcode in ('dynamic-slice', 'gather') and position == 0:
            total += all_bytes(user.type)
          elif not (user.opcode == 'dynamic-update-slice' and position == 0):
            return math.inf
    return total

  def _turns(self, loop: _Instruction) -> int:
    """Returns the number of iterations of a loop: the constant in its condition."""
    condition = self._computations.get(loop.called('condition'), [])
    constants = [int(one.rest.split(')')[0]) for one in condition if one.opcode == 'constant' and one.type[0] in 'su']
    return max(constants, default=1)
