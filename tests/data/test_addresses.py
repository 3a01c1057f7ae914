"""Data at an address; a folder stands in for the bucket, since none is at hand."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from terraformer.config import DataConfig, UserError
from terraformer.data import addresses, batches, child, prepare, store
from terraformer.data.tokenizer import Tokenizer


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """The folder that `gs://bucket` is."""
  folder = tmp_path / 'bucket'
  monkeypatch.setattr(addresses, 'path_of', lambda place: Path(str(place).replace('gs://bucket', str(folder))))
  monkeypatch.setattr(store, 'path_of', addresses.path_of)
  monkeypatch.setenv('TERRAFORMER_CACHE', str(tmp_path / 'cache'))
  return folder


def test_what_is_prepared_for_an_address_is_copied_there_and_read(bucket, fake_prepared, monkeypatch):
  here = fake_prepared('pairs')
  there = dataclasses.replace(here, directory='gs://bucket/data')

  def prepare_here(config, show_progress, share, lock):
    shutil.copytree(store.folder_of(here), store.folder_of(config), dirs_exist_ok=True)
    return store.read_manifest(config)

  monkeypatch.setattr(prepare, '_prepare', prepare_here)
  prepare.prepare(there, show_progress=False)
  assert sorted(path.name for path in (bucket / 'data/pairs').iterdir()) == sorted(
    path.name for path in store.folder_of(here).iterdir()
  )
  assert not list(addresses.staging_folder(there.directory).glob('pairs'))
  assert prepare.is_prepared(there) and prepare.prepare(there).examples['train'] == 40
  one, other = (batches.open_prepared(config).train_batches(4, 0).batch(0) for config in (here, there))
  np.testing.assert_array_equal(one['inputs'], other['inputs'])


def test_a_copy_that_was_cut_off_is_gone_on_with(tmp_path):
  source, target = tmp_path / 'source', tmp_path / 'target'
  source.mkdir()
  for name in ('a', 'b', 'manifest'):
    (source / name).write_text(f'all of {name}')
  addresses.copy_folder(source, target, last='manifest')
  (target / 'a').write_text('half')
  kept = (target / 'b').stat().st_mtime_ns
  addresses.copy_folder(source, target, last='manifest')
  assert (target / 'a').read_text() == 'all of a' and (target / 'b').stat().st_mtime_ns == kept


def test_the_manifest_is_copied_last(tmp_path, monkeypatch):
  copied = []
  (tmp_path / 'source').mkdir()
  for name in ('manifest.json', 'train', 'a'):
    (tmp_path / 'source' / name).write_text(name)
  monkeypatch.setattr(type(epath.Path(tmp_path)), 'copy', lambda path, *_, **__: copied.append(path.name))
  addresses.copy_folder(tmp_path / 'source', tmp_path / 'target', last='manifest.json')
  assert copied == ['a', 'train', 'manifest.json']


def test_an_address_that_cannot_be_reached_is_named_in_a_sentence(monkeypatch):
  def unreachable(place):
    raise RuntimeError(f'403 for {place}\nand so on')

  for module in (addresses, store):
    monkeypatch.setattr(module, 'path_of', unreachable)
  monkeypatch.setattr('terraformer.data.tokenizer.path_of', unreachable)
  config = DataConfig(directory='gs://bucket/data')
  for use in (prepare.prepare, child.ensure_prepared, batches.open_prepared):
    with pytest.raises(UserError, match=r'^gs://bucket/data: expected an address that can be reached, found 403 for'):
      use(config)
  with pytest.raises(UserError, match=r'^gs://bucket/a.model: expected an address that can be reached, found 403'):
    Tokenizer.open('gs://bucket/a.model')
