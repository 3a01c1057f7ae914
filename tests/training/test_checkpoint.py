"""Checkpoints that are missing, half-written, damaged or of another model."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from terraformer.config import UserError
from terraformer.training import checkpoint
from terraformer.training.manifest import NAME, DamagedError, verify


@pytest.fixture
def run_copy(finished_run, tmp_path):
  return shutil.copytree(finished_run, tmp_path / 'run')


def newest(run):
  return checkpoint.folder(run) / str(checkpoint.steps(run)[0])


def flip(path, at=-1):
  """Turns one bit of a file."""
  data = bytearray(path.read_bytes())
  data[at] ^= 1
  path.write_bytes(data)


def test_the_newest_are_kept_with_the_config_and_the_fingerprints(finished_run):
  assert checkpoint.steps(finished_run) == [24, 20, 16]
  run, stored = checkpoint.read_run(finished_run, 24)
  assert run.model.d_model == 16
  assert 'config.BlockConfig.d_model = 16' in stored['gin']
  assert stored['corpus_fingerprint'] == 'c'  # as the stand-in for the miner says
  assert len(stored['data_fingerprint']) == 64 and len(stored['vocabulary']['fingerprint']) == 64


def test_no_checkpoint_is_named(tmp_path):
  with pytest.raises(UserError, match='there is no checkpoint; give the folder of a run that has one'):
    checkpoint.require_step(tmp_path)


def test_a_save_that_was_cut_short_does_not_count(run_copy):
  folder = checkpoint.folder(run_copy)
  shutil.copytree(folder / '24', folder / '28.orbax-checkpoint-tmp')
  assert checkpoint.latest_step(run_copy) == 24


def test_every_file_is_checked(run_copy):
  folder = newest(run_copy)
  files = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}
  later = {NAME, '_CHECKPOINT_METADATA', 'commit_success.txt'}
  assert files - set(json.loads((folder / NAME).read_text())['files']) <= later
  verify(folder)
  for name in json.loads((folder / NAME).read_text())['files']:
    kept = (folder / name).read_bytes()
    if not kept:
      continue
    flip(folder / name, len(kept) // 2)
    with pytest.raises(DamagedError, match='expected sha256'):
      verify(folder)
    (folder / name).write_bytes(kept)
  verify(folder)


def cut(path):
  """Takes the last byte of a file."""
  path.write_bytes(path.read_bytes()[:-1])


def _largest(folder):
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


DAMAGES = {
  'flipped bit': (lambda step: flip(_largest(step / 'state')), r'expected sha256 .*, found'),
  'truncated file': (lambda step: cut(_largest(step / 'state')), 'bytes, found'),
  'no metadata': (lambda step: (step / '_CHECKPOINT_METADATA').unlink(), 'cannot read the JSON'),
  'no state': (lambda step: shutil.rmtree(step / 'state'), 'found no such file'),
  'no run': (lambda step: shutil.rmtree(step / 'run'), 'found no such file'),
  'no manifest': (lambda step: (step / NAME).unlink(), f'the checkpoint has no {NAME}'),
  'half a manifest': (lambda step: cut(step / NAME), 'cannot read the checksums'),
  'empty folder': (lambda step: (shutil.rmtree(step), step.mkdir()), 'the checkpoint is an empty folder'),
}  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_named_and_an_older_step_is_used(run_copy, damage, capsys):
  do, message = DAMAGES[damage]
  do(newest(run_copy))
  with pytest.raises(DamagedError, match=message):
    checkpoint.latest_step(run_copy, older_if_damaged=False)
  assert checkpoint.latest_step(run_copy) == 20
  said = capsys.readouterr().err.splitlines()
  assert len(said) == 1 and str(newest(run_copy)) in said[0] and 'looking for an older checkpoint' in said[0]
  checkpoint.set_aside(run_copy, newer_than=20)
  assert checkpoint.steps(run_copy) == [20, 16]
  assert (checkpoint.folder(run_copy) / '24.aside').is_dir()


def test_where_no_step_is_whole_the_newest_is_named(run_copy):
  for step in checkpoint.steps(run_copy):
    (checkpoint.folder(run_copy) / str(step) / NAME).unlink()
  with pytest.raises(DamagedError, match=f'24: the checkpoint has no {NAME}; no older one is intact'):
    checkpoint.latest_step(run_copy)


def test_where_the_only_step_is_damaged_nothing_older_is_looked_for(run_copy, capsys):
  for step in (20, 16):
    shutil.rmtree(checkpoint.folder(run_copy) / str(step))
  (newest(run_copy) / NAME).unlink()
  with pytest.raises(DamagedError, match=f'24: the checkpoint has no {NAME}; there is no older one$'):
    checkpoint.latest_step(run_copy)
  assert not capsys.readouterr().err


def test_a_damaged_run_goes_on_from_the_step_before_by_itself(terraformer, gin_file, finished_run, run_copy):
  from tests.training.test_resume import assert_same_end

  flip(_largest(newest(run_copy) / 'state'))
  process = terraformer('train', f'--workdir={run_copy}', f'--gin_file={gin_file}')
  _, errors = process.communicate(timeout=200)
  assert process.returncode == 0, errors[-3000:]
  assert 'expected sha256' in errors and 'looking for an older checkpoint' in errors
  assert (checkpoint.folder(run_copy) / '24.aside').is_dir()
  assert_same_end(finished_run, run_copy)


def test_another_shape_is_named(run_copy):
  run, _ = checkpoint.read_run(run_copy, 24)
  model = dataclasses.replace(run.model, vocab_size=456)
  with pytest.raises(UserError, match=r'expected embedding.table_VxD of float32\[456, 16\], found .*452, 16'):
    checkpoint.restore_params(run_copy, 24, dataclasses.replace(run, model=model))


STATE = {'params': {'w': np.ones((4, 2), np.float32)}, 'optimizer': optax.EmptyState(), 'step': np.int32(3)}
OTHERS = {
  'shape': ({'w': jnp.zeros((4, 3))}, r'expected params.w of float32\[4, 3\], found float32\[4, 2\]'),
  'dtype': ({'w': jnp.zeros((4, 2), jnp.bfloat16)}, r'expected params.w of bfloat16\[4, 2\], found float32\[4, 2\]'),
  'name': ({'v': jnp.zeros((4, 2))}, r'expected params.v of float32\[4, 2\], found none'),
  'left over': ({}, r'the model has no parameter params.w, found float32\[4, 2\]'),
}


def test_a_state_comes_back_and_one_of_another_shape_name_or_type_is_named(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
  checkpoints.save(3, STATE, {})
  same = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), STATE)
  np.testing.assert_array_equal(checkpoints.restore(3, same)['params']['w'], STATE['params']['w'])
  verify(tmp_path / '3')
  for params, message in OTHERS.values():
    abstract = same | {'params': jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)}
    with pytest.raises(UserError, match=message):
      checkpoints.restore(3, abstract)
  checkpoints.close()


def test_another_format_is_named(run_copy):
  path = checkpoint.folder(run_copy) / '24' / 'run' / 'metadata'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'format': 99}))
  with pytest.raises(
    UserError, match='expected at most checkpoint format 6, found 99, which a newer version wrote; update terraformer'
  ):
    checkpoint.read_run(run_copy, 24)


def test_a_large_stacked_array_is_stored_by_layer(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, '_PIECE_BYTES', 4096)
  saved = checkpoint.Checkpoints(tmp_path / 'checkpoints', keep=1)
  w_LxD = jnp.arange(6 * 1024, dtype=jnp.float32).reshape(6, 1024)
  saved.save(1, {'params': {'w_LxD': w_LxD}}, {})
  saved.close()
  np.testing.assert_array_equal(checkpoint.read_layer(tmp_path, 1, 'w_LxD', 4), w_LxD[4])
  sizes = json.loads((tmp_path / 'checkpoints/1/state/array_metadatas/process_0').read_text())
  assert sizes['array_metadatas'][0]['array_metadata']['chunk_shape'] == [1, 1024]
