"""Files of tensors: written one by one, opened by anybody, mapped without a copy."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from terraformer.config import UserError
from terraformer.decode.tensors import ALIGNMENT, INDEX, map_tensors, write_tensors

RNG = np.random.default_rng(0)
TENSORS = {
  'a.w': RNG.normal(size=(3, 5)).astype(np.float32),
  'a.bias': RNG.normal(size=(7,)).astype(ml_dtypes.bfloat16),
  'b.scalar': np.float32(3).reshape(()),
  'b.w': RNG.normal(size=(16, 16)).astype(np.float32),
  'c.units': np.arange(5, dtype=np.int32),
}


def write(folder, **options):
  write_tensors(folder, TENSORS, TENSORS.__getitem__, **options)


@pytest.mark.parametrize('shard_bytes', [4e9, 100, 1])
def test_what_was_written_is_mapped(tmp_path, shard_bytes):
  write(tmp_path, shard_bytes=shard_bytes)
  mapped = map_tensors(tmp_path)
  assert mapped.keys() == TENSORS.keys()
  for name, array in mapped.items():
    np.testing.assert_array_equal(array, TENSORS[name], strict=True)
    assert array.ctypes.data % ALIGNMENT == 0
  assert (tmp_path / INDEX).exists() == (shard_bytes < 4e9)


def test_any_safetensors_reader_opens_every_file(tmp_path):
  write(tmp_path, shard_bytes=100)
  found = {}
  for path in tmp_path.glob('*.safetensors'):
    found |= safetensors.numpy.load_file(path)
  for name, array in TENSORS.items():
    np.testing.assert_array_equal(found[name], array)
  places = json.loads((tmp_path / INDEX).read_text())
  assert places['weight_map'].keys() == TENSORS.keys()
  assert places['metadata']['total_size'] == sum(array.nbytes for array in TENSORS.values())


def test_jax_computes_with_the_mapped_file_and_copies_nothing(tmp_path):
  write(tmp_path)
  mapped = map_tensors(tmp_path)
  for name in ('a.w', 'b.w', 'a.bias'):
    array = jax.device_put(mapped[name], may_alias=True)
    assert array.unsafe_buffer_pointer() == mapped[name].ctypes.data
    np.testing.assert_array_equal(array, TENSORS[name])


def test_one_tensor_at_a_time_is_asked_for_in_order(tmp_path):
  asked = []

  def read(name):
    asked.append(name)
    return TENSORS[name]

  write_tensors(tmp_path, TENSORS, read, shard_bytes=200)
  assert asked == list(TENSORS)


def header_of(path):
  data = path.read_bytes()
  length = int.from_bytes(data[:8], 'little')
  return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path, **fields):
  """Changes what the header says of one tensor."""
  header, data = header_of(path)
  header['b.w'].update(fields)
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + data)


def overlap(path):
  """Moves a tensor over the one before it, while as many bytes as before are said to be filled."""
  header, data = header_of(path)
  begin, end = header['__padding__.a.bias']['data_offsets']
  header['__padding__.a.bias']['data_offsets'] = [begin - 1, end - 1]
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + data)


DAMAGES = {
  'empty': (lambda path: path.write_bytes(b''), r'model.safetensors cannot be mapped \(cannot mmap an empty file\)'),
  'foreign': (lambda path: path.write_bytes(b'PK' * 40), 'is not a safetensors file: it has no valid header'),
  'no JSON': (lambda path: path.write_bytes((8).to_bytes(8, 'little') + b'{"a": [}'), 'its header is not valid JSON'),
  'a list': (lambda path: path.write_bytes((2).to_bytes(8, 'little') + b'[]'), 'expected an object, found list'),
  'cut early': (lambda path: path.write_bytes(path.read_bytes()[:99]), r'cut off in its header \(91 of '),
  'cut': (lambda path: path.write_bytes(path.read_bytes()[:-50]), 'is cut off before the end of the tensor c.units'),
  'longer': (lambda path: path.write_bytes(path.read_bytes() + b'more'), r'bytes of tensors, found'),
  'shape': (lambda path: rewrite(path, shape=[16, 17]), r'the tensor b.w of float32\[16, 17\]'),
  'type': (lambda path: rewrite(path, dtype='F8'), 'type, shape and offsets of the tensor b.w'),
  'more dimensions than an array has': (lambda path: rewrite(path, shape=[1] * 70 + [16, 16]),
  'no array can have the shape of the tensor b.w'),
  'dimensions beyond any array': (
    lambda path: rewrite(path, shape=[2**40, 2**40, 0], data_offsets=[0, 0]),
    'no array can have the shape of the tensor b.w'
  ),
  'a product beyond any number of bytes': (lambda path: rewrite(path, shape=[2**40, 2**40]), 'found 1,024 bytes'),
  'places beyond any file': (lambda path: rewrite(path, data_offsets=[2**64, 2**64 + 1024]),
  'before the end of the tensor b.w'),
  'two tensors in one place': (lambda path: overlap(path),
  'the tensors a.bias and __padding__.a.bias overlap'),
  'places that are no numbers': (lambda path: rewrite(path, data_offsets=['0', '9']), 'and offsets of the tensor b.w'),
  'places between numbers': (lambda path: rewrite(path, data_offsets=[0.0, 1088.0]), 'and offsets of the tensor b.w'),
  'missing': (lambda path: path.unlink(), 'model.safetensors is missing; export the bundle again'),
}  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_named_with_the_file(tmp_path, damage):
  write(tmp_path)
  do, message = DAMAGES[damage]
  do(tmp_path / 'model.safetensors')
  with pytest.raises(UserError, match=message) as error:
    map_tensors(tmp_path)
  assert str(error.value).startswith(str(tmp_path / 'model.safetensors'))
  assert len(str(error.value)) < 1100


@pytest.mark.parametrize(
  'file', ['../model.safetensors', '/etc/passwd', 'a\nb', '\0', '\ud800', '.', '..', 'x' * 300, 3, None]
)
def test_a_file_that_the_index_names_lies_beside_it(tmp_path, file):
  folder = tmp_path / 'several'
  folder.mkdir()
  write(tmp_path)
  write(folder, shard_bytes=100)
  index = json.loads((folder / INDEX).read_text())
  index['weight_map']['a.w'] = file
  (folder / INDEX).write_text(json.dumps(index))
  with pytest.raises(UserError, match='same folder|not an index|is missing|cannot be mapped|cannot read') as error:
    map_tensors(folder)
  assert str(error.value).isprintable()


def test_a_tensor_that_the_index_promises_is_named(tmp_path):
  write(tmp_path, shard_bytes=100)
  index = json.loads((tmp_path / INDEX).read_text())
  index['weight_map']['d.w'] = index['weight_map']['a.w']
  (tmp_path / INDEX).write_text(json.dumps(index))
  with pytest.raises(UserError, match='the tensor d.w, which model.safetensors.index.json lists, is missing'):
    map_tensors(tmp_path)
  (tmp_path / INDEX).write_text('{"weight_map": 3}')
  with pytest.raises(UserError, match='is not an index of tensors in JSON'):
    map_tensors(tmp_path)
