"""Checkpoints that cannot be imported end in one sentence and status 2, and leave nothing."""

import gzip
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from terraformer.cli import main

FOLDER = Path(__file__).parent / 'checkpoints'


def _arrays(folder):
  arrays = []
  with gzip.open(folder / 'model.weights.npy.gz') as file:
    while file.peek(1):
      arrays.append(np.load(file))
  return arrays


def _write(folder, arrays):
  with gzip.open(folder / 'model.weights.npy.gz', 'wb', compresslevel=1) as file:
    for array in arrays:
      np.save(file, array)


def _changed(change):
  """A spoiler that changes the list of arrays."""

  def spoil(folder):
    arrays = _arrays(folder)
    change(arrays)
    _write(folder, arrays)

  return spoil


def _gin(*changes):
  """A spoiler that replaces texts in config.gin, by pairs of old and new."""

  def spoil(folder):
    text = (folder / 'config.gin').read_text()
    for old, new in zip(changes[::2], changes[1::2], strict=True):
      assert old in text
      text = text.replace(old, new)
    (folder / 'config.gin').write_text(text)

  return spoil


def _cut(name, share):
  def spoil(folder):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * share)])

  return spoil


def _double(arrays):
  arrays[7] = arrays[7].astype(np.float64)


def _swap_files(folder):
  shutil.copyfile(FOLDER / 'c4_big' / 'model.weights.npy.gz', folder / 'model.weights.npy.gz')


def _swap_arrays(arrays):
  arrays[5], arrays[6] = arrays[6], arrays[5]


def _bomb(folder):
  with gzip.open(folder / 'model.weights.npy.gz', 'wb') as file:
    np.lib.format.write_array_header_1_0(file, {'descr': '<f4', 'fortran_order': False, 'shape': (10**6, 10**6)})
    for _ in range(64):
      file.write(bytes(1 << 20))


def _bomb_of_zeros(folder):
  with gzip.open(folder / 'model.weights.npy.gz', 'wb') as file:
    for _ in range(64):
      file.write(bytes(1 << 20))


def _hostile(folder):
  class Runs:
    def __reduce__(self):
      return os.system, ('touch executed',)

  (folder / 'model.pkl.gz').write_bytes(gzip.compress(pickle.dumps({'flat_weights': Runs()})))


def _objects(folder):
  array = np.array([os.system], object)
  with gzip.open(folder / 'model.weights.npy.gz', 'wb') as file:
    np.save(file, array, allow_pickle=True)


def _pickle(value):
  return lambda folder: (folder / 'model.pkl.gz').write_bytes(gzip.compress(pickle.dumps(value)))


SPOILED = {
  'no config': (lambda folder: (folder / 'config.gin').unlink(), 'give the config.gin of the checkpoint with --config'),
  'no weights': (lambda folder: (folder / 'model.weights.npy.gz').unlink(), 'model.weights.npy.gz, which is missing'),
  'no pickle': (lambda folder: (folder / 'model.pkl.gz').unlink(), 'there is no checkpoint of trax'),
  'another d_model': (
    _gin('d_model = 48', 'd_model = 60', 'attn_kv = 12', 'attn_kv = 15'),
    'entry 0 has the shape [84, 48]',
  ),
  'another number of heads': (_gin('n_heads = 4', 'n_heads = 5'), 'n_heads'),
  'a layer more': (_gin('n_encoder_layers = 2', 'n_encoder_layers = 3'), 'encoder/block2/attn/q/kernel [48, 48] here'),
  'a layer too few': (_gin('n_decoder_layers = 3', 'n_decoder_layers = 2'), 'with loss/gating [4, 48] here'),
  'the last layer cut off': (_changed(lambda arrays: arrays.__delitem__(slice(-9, None))), 'is missing'),
  'an array too few': (_changed(lambda arrays: arrays.pop(100)), 'entry 10'),
  'an array too many': (_changed(lambda arrays: arrays.append(arrays[0])), 'entry 174 is one too many'),
  'two arrays exchanged': (_changed(_swap_arrays), 'entry 5 has the shape [48]'),
  'float64': (_changed(_double), 'entry 7: weights are float32'),
  'weights of another model': (_swap_files, 'entry 0 has the shape [69, 40]'),
  'truncated weights': (_cut('model.weights.npy.gz', 0.6), 'the file is truncated'),
  'weights of half the bytes': (_cut('model.weights.npy.gz', 0.001), 'the file is truncated'),
  'truncated pickle': (_cut('model.pkl.gz', 0.6), 'the file is truncated'),
  'a huge array': (_bomb, 'entry 0 has the shape [1000000, 1000000]'),
  'a bomb of zeros': (_bomb_of_zeros, 'this is not an array'),
  'an array of objects': (_objects, 'weights are float32'),
  'a hostile pickle': (_hostile, 'system'),
  'a pickle of something else': (_pickle([1, 2]), 'this pickle is not a checkpoint of trax'),
  'a number of weights that is none': (_pickle({'flat_weights': 'all'}), 'must be a list or a number'),
  'a config that is no text': (lambda folder: (folder / 'config.gin').write_bytes(b'\xff\xfe'), 'not a text in UTF-8'),
  'a config of another model': (
    _gin('ConfigurableTerraformer.', 'Transformer.'),
    'no values for ConfigurableTerraformer',
  ),
  'a field without a counterpart': (_gin('n_layers_forget = 0', 'n_layers_forget = 2'), 'n_layers_forget is 2'),
  'a field that nobody knows': (
    _gin('ConfigurableTerraformer.d_ff', 'ConfigurableTerraformer.d_fff'),
    'ConfigurableTerraformer.d_fff is a field that this importer does not know',
  ),
}


@pytest.mark.parametrize('target', ['output', 'workdir'])
@pytest.mark.parametrize('name', SPOILED)
def test_what_is_wrong_is_one_sentence_and_nothing_is_left(copied, tmp_path, capsys, monkeypatch, name, target):
  monkeypatch.chdir(tmp_path)
  folder, (spoil, says) = copied('c4_medium'), SPOILED[name]
  spoil(folder)
  before = sorted(path.name for path in tmp_path.iterdir())
  assert main(['import', f'--checkpoint={folder}', f'--{target}={tmp_path / "new" / "imported"}']) == 2
  errors = capsys.readouterr().err
  assert says in errors and errors.startswith('terraformer import: ') and errors.count('\n') == 1
  left = sorted(path.name for path in tmp_path.iterdir() if path.name != 'new')
  assert left == before and not any(tmp_path.glob('new/*'))


def test_a_second_embedding_that_differs_is_refused(copied, tmp_path, capsys):
  folder = copied('c4_big')
  arrays = _arrays(folder)
  arrays[2] = arrays[2] + 1
  _write(folder, arrays)
  assert main(['import', f'--checkpoint={folder}', f'--output={tmp_path / "bundle"}']) == 2
  assert 'entry 2 must be a copy of the embedding' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    ([], 'give either --output'),
    (['--output=a', '--workdir=b'], 'give either --output'),
    (['--workdir=b', '--dtype=bfloat16'], '--dtype is for a bundle'),
    (['--output=a', '--vocabulary=nowhere'], 'nowhere: cannot read the vocabulary: no such file'),
    (['--output=a', '--config=nowhere'], 'nowhere: there is no such file'),
    (['--output='], '--output: the path is empty'),
  ],
)
def test_flags_that_make_no_sense_are_refused(tmp_path, monkeypatch, capsys, flags, says):
  monkeypatch.chdir(tmp_path)
  assert main(['import', f'--checkpoint={FOLDER / "c4_medium"}', *flags]) == 2
  errors = capsys.readouterr().err
  assert says in errors and errors.count('\n') == 1 and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('target', 'says'), [('output', 'holds mine.txt, which is not part of a bundle'), ('workdir', 'new or empty')]
)
def test_a_folder_with_other_files_is_kept(tmp_path, capsys, target, says):
  (tmp_path / 'mine.txt').write_text('keep')
  assert main(['import', f'--checkpoint={FOLDER / "c4_medium"}', f'--{target}={tmp_path}']) == 2
  assert says in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ['mine.txt']
