"""Hands in damaged files by the thousand: each gives a valid result or a UserError, within a second.

usage: python benchmarks/fuzz.py [--mutations=2000] [--seed=0] [--only=gin,jsonl,config,tensors,prepared]

Five kinds of input are made valid first and then mutated, blindly (bits, bytes, cuts) and by their structure (keys,
values, types, names of files). Whatever is accepted is used: a model is traced, batches are read. Prints a table, and
every failure that is not like one before: another exception than UserError, a message that is not one printable line,
a result that is not valid, more than a second or 512 MB, or a file left behind. Exits with status 1 unless there is
none. One seed gives the same mutations.
"""

import argparse
import contextlib
import copy
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from terraformer import config as config_lib
from terraformer.cli import load_configs
from terraformer.config import (
  DataConfig,
  LocalFilesConfig,
  LocalFolderConfig,
  RunConfig,
  SeqioTaskConfig,
  UserError,
  to_dict,
)
from terraformer.data import job, local_files, local_folder, parts, store
from terraformer.data.batches import open_prepared
from terraformer.data.tokenizer import Tokenizer, train_vocabulary
from terraformer.decode import bundle as bundle_module
from terraformer.decode.bundle import Content, open_bundle, parameter_shapes, stored_shapes, write_bundle
from terraformer.decode.storage import layouts_for
from terraformer.decode.stored import PackedMatrix, StoredArray
from terraformer.decode.tensors import write_tensors
from terraformer.models.parameters import flatten, merge_module, split_module, unflatten

SECONDS, HANG_SECONDS = 1.0, 60
LONGEST_MESSAGE = 2000  # characters
MORE_MEMORY, MOST_MEMORY = 512 << 20, 8 << 30  # bytes that a mutation may take, and that the system lets it have

# --- Mutations of bytes ----------------------------------------------------------------------------------------------

_INSERTED = (
  b'\0', b'\xff', b'\xef\xbb\xbf', b'\xc3\x28', b'\xed\xa0\x80', b'\n', b'\r', b'\x0c', b'\x1b[2J', b'\xe2\x80\xa8',
  b'"', b'\\', b'\\u0000', b'\\ud800', b'{', b']', b',', b'#', b"'", b'()', b'-', b'9' * 5000, b' ' * 9999,
  b'[' * 100_000,
)  # fmt: skip


@st.composite
def changed_bytes(draw, base: bytes, other: bytes = b'') -> bytes:
  """One to three blind changes of bytes; `other` is what some of them may come from."""
  data = base
  for _ in range(draw(st.integers(1, 3))):
    at = draw(st.integers(0, len(data)))
    end = min(len(data), at + draw(st.sampled_from((1, 2, 8, 100))))
    change = draw(st.sampled_from(('cut', 'flip', 'insert', 'remove', 'repeat', 'other', 'random', 'whole')))
    if change == 'cut':
      data = data[:at]
    elif change == 'flip' and at < len(data):
      data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    elif change == 'insert':
      data = data[:at] + draw(st.sampled_from(_INSERTED)) + data[at:]
    elif change == 'remove':
      data = data[:at] + data[end:]
    elif change == 'repeat':
      data = data[:end] + data[at:end] * draw(st.sampled_from((1, 2, 50))) + data[end:]
    elif change == 'other':
      data = data[:at] + other[at:end] + data[end:]
    elif change == 'random':
      data = data[:at] + draw(st.binary(max_size=16)) + data[end:]
    elif change == 'whole':
      data = draw(st.sampled_from((b'', b'\0' * 100, other, b'\xef\xbb\xbf' + data, data + data)))
  return data


# --- Mutations of JSON -----------------------------------------------------------------------------------------------

_MARK = '\x01'  # in the name of a key: it is removed when the text is written, so that keys can be there twice


class _Raw(str):
  """Stands for this text, which Python's `json` would not write."""


_RAW = (
  'NaN', '-Infinity', '1e999', '-0', '1' * 5000, '-' + '9' * 4000, '1E400', '0.1e-999', '01', "'a'", 'None', '',
  '[' * 100_000 + ']' * 100_000, '{"a":' * 100_000 + '1' + '}' * 100_000, *('[' * n + ']' * n for n in range(900,
  1000, 7)), '[' * 5000 + ']' * 5000,
  '{"kind":' * 900 + '1' + '}' * 900, r'"\ud800"', r'"\u0000"', '"\x07"', '{"a": 1, "a": 2}',
  '"' + 'a' * 1_000_000 + '"',
)  # fmt: skip
_PLAIN = (
  None, True, False, 0, -1, 1, 2, 3, 7, 16, 64, 1000, 10**6, 10**9, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, 2**70,
  -(2**63), 10**30, 10**300, 10**4000, 0.0, 0.5, 1.0, -1.5, 1e-300, 1e300, '', ' ', 'a', '\n', 'a\nb', '\u2028',
  'd_mоdel',
  '../x', '/etc/passwd', 'a/b', '.', '..', 'a' * 5000, [], {}, [1], [[]], [{}], [0] * 1000, [None, 'a', -1], {'': {}},
  {'kind': []}, {'kind': 'DecodeConfig'}, {'kind': 'ModelConfig'}, {'kind': 'Checked'},
)  # fmt: skip


def _configs() -> list[Any]:
  kinds = [getattr(config_lib, name) for name in config_lib.__all__]
  made = []
  for kind in kinds:
    with contextlib.suppress(UserError, TypeError, NotImplementedError, StopIteration):
      made.append(to_dict(kind())) if dataclasses.is_dataclass(kind) else None
  return [*made, _nest(100), _nest(450), _nest(900)]


def _nest(depth: int) -> _Raw:
  """Configs within configs, each of which is complete."""
  before, after = json.dumps(to_dict(config_lib.BlockConfig()) | {'projection': '?'}).split('"?"')
  return _Raw(before * depth + '0' + after * depth)


def _places(node: Any, path: tuple = ()) -> Iterator[tuple]:
  """The path of everything within a tree."""
  items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
  for key, value in items:
    yield (*path, key)
    yield from _places(value, (*path, key))


def _at(tree: Any, path: tuple) -> Any:
  return functools.reduce(lambda node, key: node[key], path, tree)


@st.composite
def changed_tree(draw, base: dict[str, Any], values: tuple = (), names: tuple = ()) -> dict[str, Any]:
  """One to three changes of the structure of JSON; `values` and `names` are put into it beside those of `_PLAIN`."""
  tree = copy.deepcopy(base)
  for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
    places = list(_places(tree))
    if not places:
      break
    *path, key = draw(st.sampled_from(places))
    node = _at(tree, path)
    change = draw(st.sampled_from(('remove', 'rename', 'twice', 'add', *('value', 'near', 'swap') * 3)))
    if change == 'remove':
      del node[key]
    elif change == 'value':
      node[key] = copy.deepcopy(draw(st.sampled_from((*_PLAIN, *map(_Raw, _RAW), *values * 2))))
    elif change == 'swap':
      node[key] = copy.deepcopy(_at(tree, draw(st.sampled_from(places))))
    elif change == 'near' and type(node[key]) in (int, float):
      node[key] = draw(st.sampled_from((lambda x: x + 1, lambda x: x - 1, lambda x: -x, lambda x: 2 * x, float, str)))(
        node[key]
      )
    elif isinstance(node, dict):
      name = draw(st.sampled_from((f'{key} ', str(key).upper(), '', 'a\nb', 'á', '../x', 'x' * 5000, '\ud800', *names)))
      if change == 'rename':
        tree_items = [(name if k == key else k, v) for k, v in node.items()]
        node.clear()
        node.update(tree_items)
      else:
        node[f'{key}{_MARK}' if change == 'twice' else name] = copy.deepcopy(
          draw(st.sampled_from((node[key], *_PLAIN)))
        )
  return tree


def written(tree: Any) -> bytes:
  """A tree as JSON."""
  raw: list[str] = []

  def plain(node):
    if isinstance(node, _Raw):
      raw.append(node)
      return f'{_MARK}{len(raw) - 1}{_MARK}'
    if isinstance(node, dict):
      return {key: plain(value) for key, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, list) else node

  with _any_length_of_numbers():
    text = json.dumps(plain(tree))
  for number, value in enumerate(raw):
    text = text.replace(f'"\\u0001{number}\\u0001"', value)
  return text.replace('\\u0001', '').encode()


@contextlib.contextmanager
def _any_length_of_numbers() -> Iterator[None]:
  most = sys.get_int_max_str_digits()
  sys.set_int_max_str_digits(0)
  try:
    yield
  finally:
    sys.set_int_max_str_digits(most)


@st.composite
def changed_json(draw, base: bytes, **options: tuple) -> bytes:
  """Changes of the structure, now and then of the bytes as well; or of the bytes alone."""
  how = draw(st.integers(0, 9))
  data = base if how > 7 else written(draw(changed_tree(json.loads(base), **options)))
  return draw(changed_bytes(data, base)) if how > 6 else data


# --- Subjects --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Subject:
  """A kind of input.

  Attributes:
    valid: an input that is whole.
    inputs: draws one that is damaged.
    place: puts it where it is read; not counted as time.
    read: reads it, and is what may raise a UserError.
    check: raises AssertionError unless the result is valid, and may raise a UserError as well.
  """

  valid: Any
  inputs: st.SearchStrategy
  place: Callable[[Any], Any]
  read: Callable[[Any], Any]
  check: Callable[[Any], None]


_HEAD = 'from __gin__ import dynamic_registration\nfrom terraformer import config\n'
_GIN = (
  _HEAD
  + """
D = 16  # a macro
config.TerraformerConfig.vocab_size = 452
config.TerraformerConfig.max_length = 16
config.BlockConfig.d_model = %D
config.BlockConfig.n_heads = 2
encoder/config.BlockConfig.dropout = 0.0
config.TerraformerConfig.encoder = @encoder/config.BlockConfig()
config.SparseProjectionConfig.n_modules = 4
config.SparseFFConfig:
  d_ff = 32
  block_size = 4
  rank = 4
config.SRUConfig.width = 4
config.DataConfig.source = @config.SeqioTaskConfig()
config.SeqioTaskConfig.name = 'pairs'
config.DataConfig.inputs_length = 12
config.DataConfig.targets_length = 6
config.LocalFilesConfig.train = ('a.jsonl', 'b.jsonl')
config.TrainConfig.steps = 24
config.TrainConfig.optimizer = @config.AdamWConfig()
config.AdamWConfig.schedule = @config.CosineScheduleConfig()
config.CosineScheduleConfig.peak = 1e-3
"""
)
_GIN_VALUES = (
  '0', '-1', '2**3', '1e999', 'nan', '-' * 500 + '1', '9' * 5000, '0x' + 'f' * 5000, '1e5', '1_000', '0b1', '1j', '...',
  "'" + 'x' * 1_000_000 + "'", "'\\ud800'", "'\\0'", "'a\\nb'", "b'a'", "f'{1}'", '"""a\nb"""', "'unclosed",
  '"""unclosed',
  '[' * 300 + ']' * 300, '(' * 100_000, '(' * 900 + '1' + ')' * 900, '{' * 100, '{[]: 1}', '{1: 2, 1: 3}', '(1,)',
  '()', '[,]',
  '(1, 2', 'None', 'True', 'abs', '%D', '%NONE', '%D.x', '%gin.REQUIRED', '%a/D', '@', '@config', '@config.BlockConfig',
  '@config.BlockConfig()', '@config.RunConfig()', '@config.TerraformerConfig()', '@x/config.BlockConfig()', '@none.f()',
  '@config.UserError()', '@config.from_dict()', '@config.refused', '@config.base.Checked()', '@os.getcwd()',
  '@math.pi()',
  '@config.ModelConfig()', '@config.__name__()', '@gin.macro()', '@gin.singleton()', '@s/gin.singleton()',
  '@config.DataConfig',
  '@config.config.config()', '@builtins.len()', '1 2', '1; 2', '$', '\\', '\t', 'ö', '１２', '"a" "b"',
  '@config.CosineScheduleConfig()',
)  # fmt: skip
_GIN_LINES = (
  'A = %A', 'A = %B\nB = %A', 'D = @config.BlockConfig()', 'D = %D', "include 'run.gin'", "include 'none.gin'",
  "include ''",
  "include 'b.gin'", "include '.'", "include '/dev/null'", "include '\\0'", "include 'a\\nb'", 'include 3',
  "include '" + 'a' * 5000 + "'",
  "include 'gin_configs/models/demo.gin'", 'import os', 'import math', 'import builtins', 'import none',
  'import terraformer', 'from . import x',
  'from terraformer import none', 'from terraformer.config import BlockConfig', 'import gin',
  'from __gin__ import none', _HEAD.strip(),
  'config.BlockConfig.feed_forward = @config.BlockConfig()', 'config.BlockConfig.attention = @config.BlockConfig()',
  'config.RunConfig.model = @config.RunConfig()',
  'config.TerraformerConfig.decoder = @config.TerraformerConfig()', 'config.RunConfig.data = None',
  'config.DecodeConfig.stop = 3',
  'config.AdamWConfig.schedule = @config.AdamWConfig()', 'a/b/c/config.BlockConfig.d_model = 3',
  'config.BlockConfig.d_mоdel = 3', 'config = 3',
  'config.BlockConfig = 3', 'config.BlockConfig:', 'config.BlockConfig:\n  d_model = 3\n d_ff = 4',
  'gin.macro.value = 3', 'math.sqrt.x = 3',
  'gin.singleton.constructor = @config.BlockConfig', 'os.getenv.key = 3', '\tx = 1', '#' * 100_000, 'x = \\',
  '\\\n\n', 'DECODING = 3',
  'DECODING = @config.RunConfig()', 'config.BlockConfig.recurrence = None',
  'config.RunConfig.model = @config.LanguageModelConfig()', 'x' * 100_000,
  'config.BlockConfig.check = 3', 'config.BlockConfig.self = 3', 'config.BlockConfig.__init__ = 3',
  'config.TerraformerConfig._ = 3', 'a/D = 4',
  'config.DataConfig.objective = @config.SpanCorruptionConfig()', 'config.UserError.args = 3',
  'config.to_dict.config = 3', 'config.expect = 3',
)  # fmt: skip


@st.composite
def _changed_gin(draw) -> str:
  """Changes of the lines of a gin file."""
  lines = _GIN.splitlines()
  for _ in range(draw(st.integers(1, 4))):
    at = draw(st.integers(0, len(lines) - 1))
    change = draw(st.sampled_from(('remove', 'twice', 'swap', 'word', *('value', 'line') * 3)))
    if change == 'remove' and len(lines) > 1:
      del lines[at]
    elif change == 'twice':
      lines.insert(draw(st.integers(0, len(lines))), lines[at])
    elif change == 'swap':
      other = draw(st.integers(0, len(lines) - 1))
      lines[at], lines[other] = lines[other], lines[at]
    elif change == 'word':
      words = lines[at].replace('.', ' ').split() or ['']
      lines[at] = lines[at].replace(draw(st.sampled_from(words)), draw(st.sampled_from(words)))
    elif change == 'value':
      lines[at] = f'{lines[at].split(" = ")[0]} = {draw(st.sampled_from(_GIN_VALUES))}'
    elif change == 'line':
      lines.insert(draw(st.integers(2, len(lines))), draw(st.sampled_from(_GIN_LINES)))
  return '\n'.join(lines)


def gin_subject(folder: Path) -> Subject:
  """A gin file, or a binding."""
  path = folder / 'run.gin'
  (folder / 'b.gin').write_text("include 'run.gin'\n")
  value = st.builds(
    '{} = {}'.format, st.sampled_from(_GIN.splitlines()).map(lambda x: x.split(' = ')[0]), st.sampled_from(_GIN_VALUES)
  )
  binding = st.one_of(
    value,
    st.sampled_from(_GIN_LINES),
    changed_bytes(b'config.BlockConfig.d_model = @config.RunConfig()').map(lambda x: x.decode(errors='replace')),
  )
  inputs = st.one_of(
    _changed_gin().map(lambda text: text.encode(errors='surrogatepass')),
    _changed_gin().map(lambda text: text.encode(errors='surrogatepass')),
    changed_bytes(_GIN.encode(), b'config.X = 3\n' * 100),
    st.lists(binding, min_size=1, max_size=3),
  )

  def place(given):
    if isinstance(given, list):
      return [], given
    path.write_bytes(given)
    return ['run.gin'], []

  def check(result):
    run, decode, text = result
    assert isinstance(run, RunConfig) and config_lib.from_dict(json.loads(json.dumps(to_dict(run)))) == run
    assert load_configs([], [], text)[:2] == (run, decode)

  return Subject(_GIN.encode(), inputs, place, lambda given: load_configs(*given), check)


def jsonl_subject(folder: Path) -> Subject:
  """A file of one object a line, read as a user's own file and as one of a folder, packed now and then."""
  rows = [
    {'inputs': f'The {word} house, é.', 'targets': word, 'id': at} for at, word in enumerate(('old', 'tall', 'red'))
  ]
  base = ''.join(json.dumps(row, ensure_ascii=at > 0) + '\n' for at, row in enumerate(rows)).encode()
  line = changed_json(json.dumps(rows[0]).encode(), values=('text',), names=('inputs', 'targets'))
  inputs = st.tuples(
    st.one_of(changed_bytes(base), line.map(lambda one: one + b'\n' + base)),
    st.sampled_from(('.jsonl', '.jsonl.gz')),
    st.integers(0, 9),
  )
  (folder / 'data').mkdir()

  def place(given):
    data, ending, packed = given
    for path in (folder / 'data').iterdir():
      path.unlink()
    path = folder / 'data' / f'train{ending}'
    if ending == '.jsonl.gz' and packed > 1:
      data = gzip.compress(data, 1, mtime=0)
      if packed > 5:
        data = data[: len(data) * packed // 10] if packed % 2 else data[:-9] + bytes([packed]) + data[-8:]
    path.write_bytes(data)
    return path

  def read(path):
    found, of_folder = [], LocalFolderConfig(str(folder / 'data'))
    if path.suffix == '.jsonl':
      splits = local_files.local_files(LocalFilesConfig((str(path),)))
      found = [row for split_rows in splits.values() for row in split_rows]
      found += local_files.read_rows(path, {'inputs': 'inputs'}) if found else []
    local_folder.version_of(of_folder)
    listed = local_folder.files_of(of_folder).of_split['train']
    return [row if isinstance(row, dict) else row[0] for row in found] + list(
      local_folder.read(of_folder, listed, 0, 1)
    )

  def check(rows):
    for row in rows:
      assert {'inputs'} <= row.keys() <= {'inputs', 'targets', store.RECORD}
      assert all(isinstance(text, str) and text.encode() is not None for text in row.values())

  return Subject((base, '.jsonl', 0), inputs, place, read, check)


class Folder:
  """A copy of a folder whose files are replaced by damaged ones, and put back before the next."""

  def __init__(self, source: Path, copy_: Path):
    self.source, self.path = source, copy_
    shutil.copytree(source, copy_)
    self._changed: set[str] = set()

  def change(self, files: dict[str, bytes | Path | None]) -> Path:
    """Puts bytes, a link, or (None) an empty folder in the place of each file."""
    for name in self._changed:
      path = self.path / name
      path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
      if (self.source / name).exists():
        shutil.copyfile(self.source / name, path)
    self._changed = set(files)
    for name, content in files.items():
      path = self.path / name
      path.unlink(missing_ok=True)
      if isinstance(content, bytes):
        path.write_bytes(content)
      elif content is None:
        path.mkdir()
      else:
        path.symlink_to(content)
    return self.path


_WORDS = ['red', 'green', 'tall', 'small', 'quick', 'old', 'tree', 'river', 'stone', 'house', 'bird', 'road']
_MODEL = (
  'TerraformerConfig.vocab_size = 452',
  'TerraformerConfig.max_length = 16',
  'TerraformerConfig.n_decoder_attentions = 1',
  'BlockConfig.d_model = 16',
  'BlockConfig.n_heads = 2',
  'SparseProjectionConfig.n_modules = 4',
  'SparseOutputConfig.n_modules = 4',
  'SparseFFConfig.d_ff = 32',
  'SparseFFConfig.block_size = 4',
  'SparseFFConfig.rank = 4',
  'SRUConfig.width = 4',
  'DataConfig.inputs_length = 12',
  'DataConfig.targets_length = 6',
)


def _trained() -> Tokenizer:
  return train_vocabulary([f'The {a} {b} is {c}.' for a in _WORDS for b in _WORDS for c in _WORDS], 420, 20)


def _written_bundle(folder: Path, tokenizer: Tokenizer) -> tuple[Path, Path]:
  """A bundle, and one whose weights are in several files."""
  run, _, _ = load_configs([], [f'config.{binding}' for binding in _MODEL])
  rng, shapes = np.random.default_rng(0), parameter_shapes(run.model)
  tensors = {name: rng.normal(size=shape.shape).astype(np.float32) for name, shape in shapes.items()}
  one, several = folder / 'one', folder / 'several'
  origin = {'step': 24, 'gin': _GIN, 'data_fingerprint': 'f'}
  write_bundle(one, Content(run.model, tokenizer, 12, 6, origin), tensors.__getitem__)
  shutil.copytree(one, several)
  (several / 'model.safetensors').unlink()
  layouts = layouts_for(run.model, 'float32')
  parts = [layout.encode(name, tensors[name]) for name, layout in layouts.items()]
  stored = {name: array for part in parts for name, array in part.items()}
  write_tensors(several, stored_shapes(run.model, layouts), stored.__getitem__, shard_bytes=20_000)
  return one, several


def _opened(path: Path) -> Any:
  return open_bundle(path)


def _check_bundle(opened: Any) -> None:
  """Traces a step of the model with the tensors that were read."""
  shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flatten(opened.weights).items()}
  assert shapes == bundle_module.parameter_shapes(opened.model)
  assert all(isinstance(x, np.ndarray | PackedMatrix | StoredArray) for x in flatten(opened.weights).values())
  assert 1 <= opened.inputs_length <= opened.model.max_length and opened.tokenizer.size <= opened.model.vocab_size
  _trace(opened.model, min(opened.inputs_length, 64), min(opened.targets_length, 64))


@functools.cache
def _trace(model: config_lib.ModelConfig, source: int, room: int) -> None:
  def step(tensors):
    made = merge_module(split_module(bundle_module.abstract_layerwise(model))[0], unflatten(tensors))
    return made.step(jnp.zeros(1, jnp.int32), made.prefill(jnp.ones((1, source), jnp.int32), room))[0]

  assert jax.eval_shape(step, parameter_shapes(model)).shape == (1, model.vocab_size)


def config_subject(folder: Path) -> Subject:
  """The `config.json` of a bundle."""
  one, _ = _written_bundle(folder, _trained())
  copied = Folder(one, folder / 'copy')
  base = (one / 'config.json').read_bytes()
  names = ('kind', 'n_layers', 'd_model', 'format')
  model = st.tuples(
    changed_tree(json.loads(base)['model'], values=tuple(_configs()), names=names), st.just(json.loads(base))
  )
  inputs = st.one_of(
    changed_json(base, values=tuple(_configs()), names=names),
    model.map(lambda pair: written(pair[1] | {'model': pair[0]})),
  )
  return Subject(base, inputs, lambda data: copied.change({'config.json': data}), _opened, _check_bundle)


_LENGTHS = (None, None, None, None, 0, 1, 7, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, 100_000_000, 100_000_001)


@st.composite
def _changed_weights(draw, data: bytes) -> bytes:
  """Changes of the header of a safetensors file, its length, or the bytes."""
  how = draw(st.integers(0, 5))
  if how == 0:
    return draw(changed_bytes(data))
  length = int.from_bytes(data[:8], 'little')
  header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
  names = tuple(header)[:40]
  if how < 3:
    # An entry that agrees with itself is further from what is refused at once.
    name, other = draw(st.sampled_from(names[1:])), draw(st.sampled_from(names[1:]))
    entry = copy.deepcopy(header[name])
    begin, end = entry['data_offsets']
    changes = (
      {'shape': [0], 'data_offsets': [begin, begin]}, {'shape': [2**32, 2**32, 0], 'data_offsets': [0, 0]},
      {'shape': [2**70, 0], 'data_offsets': [end, end]}, {'shape': [2**40, 2**24, *entry['shape']]},
      {'shape': [1] * 70 + entry['shape']},
      {'shape': [1] * 30 + entry['shape']}, {'shape': [-1, *[-x for x in entry['shape']]]},
      {'data_offsets': [2**64 + begin, 2**64 + end]},
      {'data_offsets': [end, begin]}, {'data_offsets': [begin + 1, end + 1]}, {'data_offsets': [-begin, -end]},
      {'data_offsets': [begin, end, end]},
      {'dtype': 'BF16', 'shape': [2, *entry['shape']]}, {'dtype': 'F64'}, {'dtype': 'I32'}, {'dtype': 'U8',
      'shape': [4, *entry['shape']]},
      {'data_offsets': header[other]['data_offsets']}, {'shape': header[other]['shape']}, header[other], {'more': 1},
      {'shape': entry['shape'][::-1]},
      {'shape': []}, {'data_offsets': [float(begin), float(end)]}, {'data_offsets': [True, end]},
      {'shape': entry['shape'] + [1]}, {'dtype': []},
    )  # fmt: skip
    header[name] = entry | draw(st.sampled_from(changes))
    if draw(st.booleans()):
      header[other] = {**header[other], 'data_offsets': [begin, end]}
    text = written(header)
  else:
    text = draw(
      changed_json(
        written(header), names=(*names, 'a\x1b[2Jb', '__padding__.x'), values=tuple(header[n] for n in names)
      )
    )
  found = draw(st.sampled_from(_LENGTHS))
  return (len(text) if found is None else found).to_bytes(8, 'little') + text + rest


def tensors_subject(folder: Path) -> Subject:
  """The weights of a bundle: a file, or several with their index."""
  one, several = _written_bundle(folder, _trained())
  outside = folder / 'x'
  shutil.copyfile(one / 'model.safetensors', outside)
  copies = {'one': Folder(one, folder / 'copy_of_one'), 'several': Folder(several, folder / 'copy_of_several')}
  shards = sorted(path.name for path in several.glob('*.safetensors'))
  index, weights = 'model.safetensors.index.json', 'model.safetensors'
  read = {name: (several / name).read_bytes() for name in (*shards, index)} | {weights: (one / weights).read_bytes()}
  paths = (
    str(outside),
    '../x',
    '../copy_of_one/model.safetensors',
    './' + shards[0],
    *shards,
    'vocabulary.model',
    'config.json',
    'mоdel',
    '\0',
    '\ud800',
    'a' * 300,
  )
  links = (None, outside, Path('../x'), Path(shards[0]), Path('none'), Path('/etc/passwd'), Path('/'))
  inputs = st.one_of(
    st.tuples(st.just('one'), st.fixed_dictionaries({weights: _changed_weights(read[weights])})),
    st.tuples(st.just('several'),
    st.sampled_from(shards).flatmap(lambda n: st.fixed_dictionaries({n: _changed_weights(read[n])}))),
    st.tuples(st.just('several'), st.fixed_dictionaries({index: changed_json(read[index], values=paths, names=paths)})),
    st.tuples(st.just('several'), st.dictionaries(st.sampled_from((*shards, index)), st.sampled_from((*links,
    *read.values())), min_size=1, max_size=2)),
    st.tuples(st.just('one'), st.dictionaries(st.sampled_from((weights, index)), st.sampled_from((*links,
    *read.values())), min_size=1, max_size=2)),
  )  # fmt: skip
  return Subject(('several', {}), inputs, lambda given: copies[given[0]].change(given[1]), _opened, _check_bundle)


def _prepare(folder: Path, task: str, features: tuple[str, ...], tokenizer: Tokenizer, **fields: Any) -> DataConfig:
  """Prepares random sentences, with a stand-in for seqio."""
  sizes = {'train': 40, 'validation': 11, 'test': 7}
  config = DataConfig(SeqioTaskConfig(task), str(folder), **fields)

  def run(_, split_name, *part):
    rng = np.random.default_rng(len(split_name))
    for at in range(sizes[split_name]):
      texts = {name: f'The {at} ' + ' '.join(rng.choice(_WORDS, 12)) for name in features}
      tokens = {name: np.array(tokenizer.encode(text), np.int32) for name, text in texts.items()}
      yield types.SimpleNamespace(tokens=tokens, texts=texts, record='')

  stand_ins = [
    types.SimpleNamespace(name=name, output_features=features, splits=store.SPLITS, num_input_examples=sizes.get)
    for name in (f'{task}_a', f'{task}_b')
  ]
  work = folder / f'.{task}'
  work.mkdir(parents=True)
  components = [job.Component(one, rate) for one, rate in zip(stand_ins, (1.0, 2.0), strict=True)]
  whole = job.Job(work, config, components, features, run, tokenizer, store.Origin('c'))
  parts.write_part(whole, 0, show_progress=False)
  parts.assemble(whole, store.folder_of(config))
  return config


@st.composite
def _changed_prepared(draw, files: dict[str, bytes]) -> dict[str, bytes | Path | None]:
  """Changes of the manifest, of other files, or of the counts of tokens and their checksum."""
  how = draw(st.integers(0, 9))
  manifest = files[store.MANIFEST]
  if how < 6:
    # A record's numbers and names are more of a manifest than its config, which only has to be that of the run.
    tree = json.loads(manifest)
    kept = {} if draw(st.booleans()) else {'config': tree['config'], 'format': tree['format'], 'task': tree['task']}
    values = (*tuple(_configs())[:10], 'train-00000-of-00001.array_record', 40, 'pairs')
    changed = changed_tree({k: v for k, v in tree.items() if k not in kept}, values=values, names=(*files, 'inputs'))
    return {store.MANIFEST: written(kept | draw(changed))}
  if how == 6:
    return {store.MANIFEST: draw(changed_bytes(manifest, b' ' * 9999))}
  name = draw(st.sampled_from(sorted(files)))
  if how == 7:
    return {name: draw(st.sampled_from((None, Path('none'), Path(name), Path(store.MANIFEST), b'', *files.values())))}
  if how == 8:
    data = draw(changed_bytes(files[name], manifest))
    # Bytes of the same number are looked at when they are read.
    return {name: data if draw(st.booleans()) else (data + bytes(len(files[name])))[: len(files[name])]}
  counts_KxV = np.load(io.BytesIO(files[store.UNIGRAMS]))
  change = draw(st.sampled_from((np.negative, np.ravel, np.transpose, lambda x: x[:1], lambda x: x[:, :9],
  lambda x: x * 10**15,
    lambda x: x.astype(np.float32), lambda x: x * np.nan, lambda x: x.astype(str), lambda x: x[None],
    lambda x: x.astype(np.int8), lambda x: x.sum(),
    lambda x: x.astype(object), lambda x: np.full_like(x, 2**62), lambda x: x > 0, lambda x: x.astype(np.uint64),
    np.copy)))  # fmt: skip
  file = io.BytesIO()
  np.save(file, change(counts_KxV))
  data = file.getvalue()
  if draw(st.booleans()):
    data = draw(st.sampled_from((data.replace(b'(2, ', b'(2' + b'0' * 12 + b', '), draw(changed_bytes(data)))))
  tree = json.loads(manifest)
  tree['checksums'][store.UNIGRAMS] = hashlib.sha256(data).hexdigest()
  return {store.UNIGRAMS: data, store.MANIFEST: written(tree)}


def prepared_subject(folder: Path) -> Subject:
  """Prepared data of pairs and of running text."""
  tokenizer = _trained()
  lengths = {'inputs_length': 12, 'targets_length': 6}
  sources = {
    'pairs': _prepare(folder / 'made', 'pairs', ('inputs', 'targets'), tokenizer, **lengths),
    'text': _prepare(folder / 'made', 'text', ('targets',), tokenizer, **lengths),
  }
  copies, inputs = {}, []
  for task, config in sources.items():
    made = store.folder_of(config)
    copies[task] = Folder(made, folder / 'copy' / task)
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    inputs.append(st.tuples(st.just(task), _changed_prepared(files)))

  def place(given):
    task, files = given
    copies[task].change(files)
    return dataclasses.replace(sources[task], directory=str(folder / 'copy'))

  def check(data):
    size = data.tokenizer.size
    train = data.train_batches(4, 0)
    batches = [train.batch(0), train.batch(data.size('train') // 4)]
    for name in ('validation', 'test'):
      read = list(data.eval_batches(name, 4))
      batches += [read[0], read[-1]]
      assert data.eval_texts(name, 1) and data.eval_tasks(name, 1)
    for batch in batches:
      assert batch['inputs'].shape == (4, 12) and batch['targets'].shape == (4, 6)
      for name in ('inputs', 'targets'):
        assert batch[name].dtype == np.int32 and batch[name].min() >= 0 and batch[name].max() < size
    assert data.unigram_counts.shape == (size,) and data.unigram_counts.min() >= 1
    assert np.isfinite(data.unigram_losses(batches[0]['targets'])).all()

  return Subject(('pairs', {}), st.one_of(inputs), place, open_prepared, check)


SUBJECTS = {
  'gin': gin_subject,
  'jsonl': jsonl_subject,
  'config': config_subject,
  'tensors': tensors_subject,
  'prepared': prepared_subject,
}

# --- Runs ------------------------------------------------------------------------------------------------------------


class _Hang(BaseException):
  """A mutation was not done with in time."""


@dataclasses.dataclass
class Result:
  """What became of the mutations of a kind of input.

  Attributes:
    valid, refused: mutations that gave a result, and that gave a UserError.
    slowest: seconds of the processor that the slowest was read in.
    failures: the first of each kind by what went wrong, with its input.
  """

  valid: int = 0
  refused: int = 0
  slowest: float = 0.0
  failures: dict[str, str] = dataclasses.field(default_factory=dict)

  @property
  def mutations(self) -> int:
    return self.valid + self.refused + self._failed

  _failed: int = 0

  def fail(self, what: str, given: Any) -> None:
    self._failed += 1
    self.failures.setdefault(what, repr(given)[:1500])


def fuzz(make: Callable[[Path], Subject], folder: Path, mutations: int, seed: int) -> Result:
  """Reads so many mutations of a subject in an empty folder."""
  result, place = Result(), folder / 'here'
  place.mkdir()
  with contextlib.chdir(place):
    subject = make(place)
    subject.check(subject.read(subject.place(subject.valid)))  # so that what is imported once counts for none

    def one(given):
      if result.mutations < mutations:
        _judge(subject, given, place, result)

    while result.mutations < mutations:
      settings = hypothesis.settings(
        max_examples=mutations - result.mutations,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
      )
      hypothesis.seed(seed)(settings(hypothesis.given(subject.inputs)(one)))()
      seed += 1
  return result


def _judge(subject: Subject, given: Any, folder: Path, result: Result) -> None:
  placed = subject.place(given)
  before, memory = _listed(folder), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  begun = seconds = None
  stage = 'read'
  try:
    with _limits():
      begun = time.thread_time()
      read = subject.read(placed)
      seconds, stage = time.thread_time() - begun, 'check'
      subject.check(read)
    result.valid += 1
  except UserError as error:
    message = str(error)
    if not message.isprintable() or not 0 < len(message) <= LONGEST_MESSAGE:
      result.fail(f'{stage}: a message of {len(message)} characters: {message[:100]!r} ... {message[-40:]!r}', given)
    else:
      result.refused += 1
  except (Exception, _Hang) as error:
    last = [frame for frame in traceback.extract_tb(error.__traceback__) if '/terraformer/' in frame.filename][-1:]
    where = [f'{Path(frame.filename).name}:{frame.lineno} {frame.line}' for frame in last]
    result.fail(f'{stage}: {type(error).__name__} at {where}: {str(error)[:150]!r}', given)
  seconds = time.thread_time() - begun if seconds is None else seconds
  result.slowest = max(result.slowest, seconds)
  if seconds > SECONDS:
    result.failures.setdefault(f'more than a second: {seconds:.1f} s', repr(given)[:1500])
  if (more := (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024) > MORE_MEMORY:
    result.failures.setdefault(f'{more >> 20} MB of memory', repr(given)[:1500])
  if (left := _listed(folder)) != before:
    result.failures.setdefault(f'files left behind: {sorted(left ^ before)}', repr(given)[:1500])


def _listed(folder: Path) -> set[tuple[str, int]]:
  return {(str(path), path.lstat().st_size) for path in folder.rglob('*')}


@contextlib.contextmanager
def _limits() -> Iterator[None]:
  """Bounds of time and memory, within which what is wrong raises an exception."""

  def stop(*_):
    raise _Hang

  before, recursion = signal.signal(signal.SIGALRM, stop), sys.getrecursionlimit()
  # Hypothesis raises Python's limit; a file that includes itself is to be read as far as otherwise.
  sys.setrecursionlimit(len(list(traceback.walk_stack(None))) + 1000)
  soft, hard = resource.getrlimit(resource.RLIMIT_AS)
  now = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (now + MOST_MEMORY, hard))
  signal.alarm(HANG_SECONDS)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    sys.setrecursionlimit(recursion)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--mutations', type=int, default=2000, help='of each kind of input (default: %(default)s)')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', default=','.join(SUBJECTS), help='kinds of input (default: %(default)s)')
  flags = parser.parse_args()
  logging.disable()  # gin logs what it then raises
  failed = False
  print('| input | mutations | valid | refused | slowest, ms | failures |\n|---|---:|---:|---:|---:|---:|', flush=True)
  for name in flags.only.split(','):
    with tempfile.TemporaryDirectory() as folder:
      result = fuzz(SUBJECTS[name], Path(folder), flags.mutations, flags.seed)
    counts = f'{result.mutations:,} | {result.valid:,} | {result.refused:,} | {1000 * result.slowest:.0f}'
    print(f'| {name} | {counts} | {len(result.failures)} |', flush=True)
    for what, given in result.failures.items():
      print(f'  {what}\n    {given}', file=sys.stderr, flush=True)
    failed |= bool(result.failures)
  return int(failed)


if __name__ == '__main__':
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  sys.exit(main())
