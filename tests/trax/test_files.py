"""Checkpoints in every form that trax had: which files are found, and that their weights are the same."""

import gzip
import json
import pickle
import shutil

import numpy as np
import pytest

from benchmarks import trax_checkpoint
from terraformer.config import UserError
from terraformer.decode.bundle import open_bundle
from terraformer.importing import import_bundle
from terraformer.models.parameters import flatten
from terraformer.trax import files

SMALL = trax_checkpoint.SIZES['small'] | {'n_decoder_layers': 1}
BASE = f'model_{trax_checkpoint.STEP}'


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A small checkpoint."""
  folder = tmp_path_factory.mktemp('small')
  trax_checkpoint.write(folder, SMALL)
  return folder


def _arrays(folder):
  arrays = []
  with gzip.open(folder / f'{BASE}.weights.npy.gz') as file:
    while file.peek(1):
      arrays.append(np.load(file))
  return arrays


def _write_arrays(path, arrays):
  with gzip.open(path, 'wb', compresslevel=1) as file:
    for array in arrays:
      np.save(file, array)


@pytest.fixture
def same(written, tmp_path):
  """Returns same(write) -> whether the checkpoint that write(folder, arrays) writes has the same weights."""

  def same(write):
    folder = tmp_path / 'other'
    folder.mkdir()
    shutil.copyfile(written / 'config.gin', folder / 'config.gin')
    write(folder, _arrays(written))
    import_bundle(written, tmp_path / 'one')
    import_bundle(folder, tmp_path / 'two')
    one, two = (json.loads((tmp_path / name / 'config.json').read_text())['checksums'] for name in ('one', 'two'))
    return one == two

  return same


def _pickled(folder, weights, **others):
  (folder / 'model.pkl.gz').write_bytes(gzip.compress(pickle.dumps({'step': 3, 'flat_weights': weights} | others)))


def test_weights_in_the_pickle(same):
  assert same(_pickled)


def test_weights_in_fortran_order(same):
  assert same(lambda folder, arrays: _pickled(folder, [np.asfortranarray(array) for array in arrays]))


def test_weights_of_february_2021(same):
  def write(folder, arrays):
    _pickled(folder, 2)
    _write_arrays(folder / 'model.pkl.gz.npy', arrays)

  assert same(write)


def test_weights_in_shards(same):
  def write(folder, arrays):
    _pickled(folder, 3)
    for number, part in enumerate((arrays[:5], arrays[5:40], arrays[40:])):
      (folder / f'model.pkl.gz.shard{number}').write_bytes(pickle.dumps(part))

  assert same(write)


def test_tables_of_positions_with_an_axis_more(written, tmp_path):
  folder = tmp_path / 'full'
  trax_checkpoint.write(folder, SMALL | {'rank': 0})
  arrays = _arrays(folder)
  import_bundle(folder, tmp_path / 'one')
  _write_arrays(folder / f'{BASE}.weights.npy.gz', [a[None] if n in (1, 2) else a for n, a in enumerate(arrays)])
  import_bundle(folder, tmp_path / 'two')
  one, two = (json.loads((tmp_path / name / 'config.json').read_text())['checksums'] for name in ('one', 'two'))
  assert one == two


@pytest.mark.parametrize('twice', [False, True])
def test_a_second_embedding_is_told_from_a_table_of_its_size(tmp_path, twice):
  folder = tmp_path / 'square'
  trax_checkpoint.write(folder, SMALL | {'rank': 0, 'twice': twice, 'vocab_size': 64})
  done = import_bundle(folder, tmp_path / 'bundle')
  assert ['embedding_again' in line for line in done.dropped] == [True] * twice


@pytest.mark.parametrize('inside', [False, True])
def test_bits_of_bfloat16_are_read(written, tmp_path, inside):
  folder = tmp_path / 'half'
  folder.mkdir()
  shutil.copyfile(written / 'config.gin', folder / 'config.gin')
  bits = [(np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16) for array in _arrays(written)]
  if inside:
    _pickled(folder, [(array, 'bfloat16') for array in bits])
  else:
    _pickled(folder, 2)
    _write_arrays(folder / 'model.weights.npy.gz', bits)
  import_bundle(written, tmp_path / 'one')
  import_bundle(folder, tmp_path / 'two')
  one, two = (flatten(open_bundle(tmp_path / name).weights)['embedding.table_VxD'] for name in ('one', 'two'))
  np.testing.assert_array_equal((np.array(one).view(np.uint32) >> 16 << 16).view(np.float32), two)


def _touch(folder, *names):
  for name in names:
    (folder / name).touch()


@pytest.mark.parametrize(
  ('names', 'main'),
  [
    (('model.pkl.gz', 'lowest_loss.pkl.gz', 'model_7.pkl.gz'), 'model.pkl.gz'),
    (('model_7.pkl.gz',), 'model_7.pkl.gz'),
    (('lowest_loss.pkl.gz', 'lowest_loss.weights.npy.gz'), 'lowest_loss.pkl.gz'),
  ],
)
def test_the_main_file_of_a_folder_is_found(tmp_path, names, main):
  _touch(tmp_path, 'config.gin', *names)
  assert files.find(tmp_path, None).main.name == main


@pytest.mark.parametrize(
  ('names', 'checkpoint', 'says'),
  [
    (
      ('model_7.pkl.gz', 'model_8.pkl.gz'),
      '.',
      'several checkpoints in this folder; give one of them: model_7',
    ),
    (('config.gin',), '.', 'there is no checkpoint of trax'),
    (('model.npy',), 'model.npy', 'not the main file of a checkpoint'),
    ((), 'none.pkl.gz', 'there is no such file'),
    (('model.pkl.gz',), '.', 'give the config.gin of the checkpoint with --config'),
  ],
)
def test_files_that_make_no_checkpoint_are_named(tmp_path, names, checkpoint, says):
  _touch(tmp_path, *names)
  with pytest.raises(UserError, match=says):
    files.find(tmp_path / checkpoint, None)


def test_a_shard_that_is_missing_is_named(written, tmp_path):
  shutil.copyfile(written / 'config.gin', tmp_path / 'config.gin')
  _pickled(tmp_path, 3)
  (tmp_path / 'model.pkl.gz.shard0').write_bytes(pickle.dumps(_arrays(written)))
  with pytest.raises(UserError, match='the weights are in 3 files, but there are 1'):
    import_bundle(tmp_path, tmp_path / 'bundle')


@pytest.mark.parametrize(
  ('weights', 'says'), [(['text'], 'entry 0: this is not an array but str'), ([None], 'NoneType')]
)
def test_weights_that_are_no_arrays_are_refused(written, tmp_path, weights, says):
  shutil.copyfile(written / 'config.gin', tmp_path / 'config.gin')
  _pickled(tmp_path, weights)
  with pytest.raises(UserError, match=says):
    import_bundle(tmp_path, tmp_path / 'bundle')
