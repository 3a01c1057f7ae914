"""Pickles of checkpoints: what is read, and that nothing of a hostile one is run."""

import collections
import gzip
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest

from terraformer.config import UserError
from terraformer.trax.pickles import Array, Record, Type, read_pickle
from terraformer.trax.source import opened
from terraformer.trax.spill import spilling

FOLDER = Path(__file__).parent / 'checkpoints'


@pytest.fixture
def read(tmp_path):
  def read(data, compressed=True):
    path = tmp_path / 'model.pkl.gz'
    path.write_bytes(gzip.compress(data) if compressed else data)
    with spilling(tmp_path) as spill, opened(path) as source:
      return read_pickle(source, spill)

  return read


class Runs:
  """Pickled as a call of a function; it creates a file if it is called."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


def _op(*parts):
  """A pickle of instructions, by name or as bytes."""
  codes = {op.name: op.code.encode('latin-1') for op in pickletools.opcodes}
  return b'\x80\x04' + b''.join(codes[part] if isinstance(part, str) else part for part in parts) + b'.'


def _text(text):
  return b'\x8c' + bytes([len(text)]) + text.encode()


def _named(module, name):
  return _text(module) + _text(name) + b'\x93'


_DICT = _named('collections', 'defaultdict')


def _hostile():
  mark = 'touch executed'
  return {
    'os.system': (pickle.dumps(Runs(os.system, mark)), 'system'),
    'os.system, protocol 0': (pickle.dumps(Runs(os.system, mark), 0), 'posix.system'),
    'os.system, protocol 2': (pickle.dumps(Runs(os.system, mark), 2), 'posix.system'),
    'eval': (pickle.dumps(Runs(eval, "open('executed', 'w')")), 'builtins.eval'),
    'exec': (pickle.dumps(Runs(exec, "open('executed', 'w')")), 'builtins.exec'),
    'open': (pickle.dumps(Runs(open, 'executed', 'w')), '_?io.open'),
    'getattr of a known class': (
      _op(_named('builtins', 'getattr'), _named('numpy', 'ndarray'), _text('tofile'), 'TUPLE2', 'REDUCE'),
      'builtins.getattr',
    ),
    'a chain of calls': (
      _op(_named('functools', 'partial'), _named('os', 'system'), 'TUPLE1', 'REDUCE', _text(mark), 'TUPLE1', 'REDUCE'),
      'functools.partial',
    ),
    'a path through a known class': (_op(_named('numpy', 'ndarray.tofile')), 'numpy.ndarray.tofile'),
    'numpy.load': (pickle.dumps(Runs(np.load, 'executed')), 'numpy.*load'),
    'an instance, protocol 0': (b"(S'" + mark.encode() + b"'\nios\nsystem\n.", 'STRING|INST'),
    'a persistent object': (_op(_text('executed'), 'BINPERSID'), 'BINPERSID'),
    'an extension': (_op(b'\x82\x01'), 'EXT1'),
    'an object of any class': (_op(_DICT, 'EMPTY_TUPLE', 'NEWOBJ'), 'defaultdict'),
    'a factory that is not list': (
      pickle.dumps(collections.defaultdict(os.getcwd)),
      'posix.getcwd',
    ),
    'a known class called as a function': (
      _op(_named('builtins', 'list'), 'EMPTY_TUPLE', 'REDUCE'),
      'a call of builtins.list',
    ),
    'a call of a result': (
      _op(
        _named('collections', 'defaultdict'), _named('builtins', 'list'), 'TUPLE1', 'REDUCE', 'EMPTY_TUPLE', 'REDUCE'
      ),
      'a call of dict',
    ),
    'state for a class': (_op(_named('trax.shapes', 'ShapeDtype'), 'EMPTY_DICT', 'BUILD'), 'a state for'),
    'state for a list': (_op('EMPTY_LIST', 'EMPTY_DICT', 'BUILD'), 'a state for list'),
    'an array of objects': (pickle.dumps(np.array([Runs(os.system, mark)], object)), 'system|array of'),
  }


HOSTILE = _hostile()


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_pickle_is_refused_by_name_before_it_runs(read, tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  data, says = HOSTILE[name]
  with pytest.raises(UserError, match=says):
    read(data)
  assert not (tmp_path / 'executed').exists()


DAMAGED = {
  'a text of 4 GB': _op(b'X\xff\xff\xff\xff'),
  'bytes of an exabyte': _op(b'\x8e' + struct.pack('<Q', 1 << 60)),
  'an array larger than its bytes': None,
  'an array of negative size': None,
  'a number of 255 bytes': _op(b'\x8a\xff' + b'\x01' * 255),
  'no end': b'\x80\x04}',
  'nothing': b'',
  'an empty stack': b'\x80\x04.',
  'an unknown place in the memo': _op(b'h\x07'),
  'a mark that is missing': _op('TUPLE'),
  'a mark as a value': _op('MARK', 'TUPLE1'),
  'a list as a key': _op('EMPTY_DICT', 'EMPTY_LIST', 'NONE', 'SETITEM'),
  'an odd number of entries': _op('EMPTY_DICT', 'MARK', _text('a'), 'SETITEMS'),
  'text that is not UTF-8': _op(b'\x8c\x01\xff'),
  'an unknown instruction': b'\x80\x04\xfe.',
  'another file': b'PK\x03\x04 this is a zip file',
}
_SPOILED = pickle.dumps(np.zeros((3, 5), np.float32), 4)
DAMAGED['an array larger than its bytes'] = _SPOILED.replace(b'K\x03K\x05\x86', b'K\x09K\x05\x86')
DAMAGED['an array of negative size'] = _SPOILED.replace(b'K\x03K\x05\x86', b'J\xff\xff\xff\xffK\x05\x86')


@pytest.mark.parametrize('name', DAMAGED)
def test_a_damaged_pickle_is_refused_in_one_sentence(read, name):
  with pytest.raises(UserError) as error:
    read(DAMAGED[name])
  assert 'model.pkl.gz: ' in str(error.value) and '\n' not in str(error.value)


def test_a_truncated_pickle_is_refused(read, tmp_path):
  whole = gzip.compress(pickle.dumps({'step': list(range(10_000))}))
  with pytest.raises(UserError, match='truncated'):
    read(whole[: len(whole) // 2], compressed=False)


def test_flipped_bits_are_refused(read):
  whole = bytearray(gzip.compress(pickle.dumps({'text': os.urandom(5000)})))
  whole[2500] ^= 255
  with pytest.raises(UserError, match='damaged'):
    read(bytes(whole), compressed=False)


def _bomb(head, n_bytes):
  """A gzip file of an instruction and zeros, made piece by piece."""
  data = io.BytesIO()
  with gzip.GzipFile(fileobj=data, mode='wb') as file:
    file.write(head)
    for _ in range(n_bytes >> 20):
      file.write(bytes(1 << 20))
  return data.getvalue()


@pytest.mark.parametrize(
  'head', [b'\x80\x04\x8e' + struct.pack('<Q', 1 << 40), b'\x80\x04(' + b'N' * 10], ids=['bytes', 'zeros']
)
def test_a_bomb_is_refused(read, head):
  with pytest.raises(UserError, match='decompresses to more than|instruction|damaged'):
    read(_bomb(head, 200 << 20), compressed=False)


def test_endless_instructions_are_refused(read, monkeypatch):
  monkeypatch.setattr('terraformer.trax.pickles._MOST_STEPS', 1000)
  with pytest.raises(UserError, match='more than 1,000 instructions'):
    read(b'\x80\x04(' + b'N' * 5000 + b't.')


def test_endless_text_is_refused(read, monkeypatch):
  monkeypatch.setattr('terraformer.trax.pickles._MOST_KEPT', 1000)
  with pytest.raises(UserError, match='bytes of text'):
    read(pickle.dumps(['x' * 400, 'y' * 400, 'z' * 400]))


@pytest.mark.parametrize('protocol', [4, 5])
@pytest.mark.parametrize(
  'value', [np.float32(1.5), np.arange(6, dtype=np.int32).reshape(2, 3), {'a': [1, -2, 1 << 40, 2.5, None, True]}]
)
def test_plain_values_are_read(read, value, protocol):
  found = read(pickle.dumps(value, protocol))
  if isinstance(value, np.ndarray):
    assert (found.shape, np.frombuffer(found.data, found.type.dtype).tolist()) == ((2, 3), list(range(6)))
  else:
    assert found == value


def test_large_arrays_go_to_the_disk(tmp_path):
  values = np.random.default_rng(0).normal(size=(300, 100)).astype(np.float32)
  path = tmp_path / 'large.pkl.gz'
  path.write_bytes(gzip.compress(pickle.dumps([values, values + 1])))
  with spilling(tmp_path) as spill, opened(path) as source:
    first, second = read_pickle(source, spill)
    arrays = [spill.array(a.shape, a.type.dtype, a.is_fortran, a.data.place, 'it').read() for a in (first, second)]
  np.testing.assert_array_equal(arrays, [values, values + 1])


def test_a_file_of_the_fixtures_is_read_as_trax_wrote_it(tmp_path):
  with spilling(tmp_path) as spill, opened(FOLDER / 'c4_medium' / 'model.pkl.gz') as source:
    values = read_pickle(source, spill)
  assert (values['step'], values['flat_weights'], values['version_timestamp']) == (2, 2, 'Mar-10-2021')
  assert values['input_signature'][0] == Record('trax.shapes.ShapeDtype', {'shape': (2, 16), 'dtype': Type('i8', '<')})
  assert isinstance(values['flat_state'][0], Array)
