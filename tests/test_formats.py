"""What earlier code has stored is read by this code, and gives what it gave: every run in every folder of a format.

Floats were computed on another processor and with other settings of the compiler, so they are compared with a tolerance
of 1e-5, relative to the largest. What is copied and not computed is compared bit for bit, and so are two runs on one
machine.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.config import DecodeConfig, InitFromConfig
from terraformer.data.batches import open_prepared
from terraformer.decode.bundle import open_bundle
from terraformer.decode.decoder import Decoder
from terraformer.decode.stored import plain
from terraformer.eval.evaluate import evaluate
from terraformer.exporting import export
from terraformer.layers.parameter import facts_of
from terraformer.models.make import abstract_model
from terraformer.models.parameters import flatten, split_module
from terraformer.training import best, checkpoint
from terraformer.training.initial import take_parameters
from terraformer.training.metrics import read_metrics
from tests import formats
from tests.formats import BUNDLE, RUN

TOLERANCE = 1e-5
CASES = sorted(path.relative_to(formats.FORMATS).parts for path in formats.FORMATS.glob('*/*.tar.xz'))
CASES = [(format_name, file.removesuffix('.tar.xz')) for format_name, file in CASES]


@dataclasses.dataclass(frozen=True)
class Stored:
  """A run that is unpacked in the working folder, and what is to come out of it."""

  format_name: str
  name: str
  expected: dict

  @property
  def config(self):
    """The config of its newest checkpoint."""
    return checkpoint.read_run(RUN, checkpoint.require_step(RUN))[0]


@pytest.fixture(params=CASES, ids='-'.join)
def stored(request, tmp_path, monkeypatch):
  format_name, name = request.param
  formats.unpack(format_name, name, tmp_path)
  monkeypatch.chdir(tmp_path)
  return Stored(format_name, name, json.loads((formats.FORMATS / format_name / f'{name}.json').read_text()))


# What has had another name since then.
RENAMED = {'vocabulary': 'tokenizer', 'VocabularyConfig': 'TokenizerConfig', 'watch_every': 'diagnostics_every'}


def differing(config, values, path='config'):
  """The fields of a config that are not the stored ones, by name; fields that are new since then do not count."""
  if not isinstance(values, dict):
    return [] if (list(config) if isinstance(config, tuple) else config) == values else [path]
  if values['kind'] == 'DataConfig' and 'task' in values:
    values, moved = _without_source(config, values, path)
    return moved + differing(config, values, path)
  if type(config).__name__ != RENAMED.get(values['kind'], values['kind']):
    return [path]
  fields = {RENAMED.get(name, name): value for name, value in values.items() if name != 'kind'}
  return [each for name in fields for each in differing(getattr(config, name, None), fields[name], f'{path}.{name}')]


def _without_source(config, values, path):
  """The fields of a DataConfig but those that its source has now; and which of these are not there as they were."""
  settings = {'local_files': 'local_files', 'local_folder': 'local_folder', 'decimal_copy': 'digits'}
  wrong = [f'{path}.task'] if config.task != values['task'] else []
  if values['task'] in settings:
    was = values[settings[values['task']]] | {'kind': type(config.source).__name__}
    wrong += differing(config.source, was, f'{path}.source')
  gone = {'task', 'tfds_directory', *settings.values()}
  return {name: value for name, value in values.items() if name not in gone}, wrong


def test_there_are_runs_of_every_format():
  assert {format_name for format_name, _ in CASES} == {path.name for path in formats.FORMATS.iterdir() if path.is_dir()}
  assert CASES


def test_every_checkpoint_has_the_config_of_the_run(stored):
  for place in formats.places():
    for step in checkpoint.steps(place):
      assert not differing(checkpoint.read_run(place, step)[0], stored.expected['config'])


def test_prepared_data_give_the_same_first_batch_and_texts(stored):
  assert formats.first_batch(stored.config) == stored.expected['first_batch']
  assert formats.held_out_texts(stored.config) == stored.expected['held_out_texts']


def test_every_checkpoint_has_its_parameters_bit_for_bit(stored):
  found = {
    str(place): {str(step): formats.checksums(formats.params(place, step)) for step in checkpoint.steps(place)}
    for place in formats.places()
  }
  assert found == stored.expected['checkpoints']
  assert best.best_step(RUN) == stored.expected['best']


def test_another_run_begins_with_its_parameters(stored):
  step = checkpoint.require_step(RUN)
  tokenizer = open_prepared(stored.config.data).tokenizer.fingerprint
  model = abstract_model(stored.config.model)
  fresh = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), split_module(model)[1])
  taken, _ = take_parameters(fresh, facts_of(model), InitFromConfig(str(RUN)), step, tokenizer)
  arrays = {name: np.asarray(array) for name, array in flatten(taken).items()}
  assert formats.checksums(arrays) == stored.expected['checkpoints'][str(RUN)][str(step)]


def test_an_evaluation_gives_the_same_loss_and_goes_on_with_its_predictions(stored):
  files = {path: path.read_bytes() for path in RUN.glob('evaluation*.jsonl')}
  assert len(files) == bool(stored.expected['predictions'])
  result = evaluate(RUN, 'test', formats.TEXTS, show_progress=False, decode=DecodeConfig() if files else None)
  assert result.loss == pytest.approx(stored.expected['evaluation']['loss'], rel=TOLERANCE)
  assert result.accuracy == pytest.approx(stored.expected['evaluation']['accuracy'], rel=TOLERANCE)
  assert [text for _, _, text in result.texts] == stored.expected['predictions']
  assert {path: path.read_bytes() for path in RUN.glob('evaluation*.jsonl')} == files


def test_a_run_goes_on_to_the_same_parameters(stored, tmp_path):
  expected, before = stored.expected['resumed'], read_metrics(RUN)
  params, losses = formats.resume(tmp_path, expected['steps'])
  assert read_metrics(RUN)[: len(before)] == before
  np.testing.assert_allclose(losses, expected['losses'], rtol=TOLERANCE)
  with np.load(formats.FORMATS / stored.format_name / f'{stored.name}.npz') as arrays:
    assert params.keys() == set(arrays.files)
    # A bias of all keys adds the same to all scores of a query, which the softmax takes away again: its gradient is
    # what rounding has left, and the optimiser makes steps of that.
    for name in (each for each in arrays.files if '.key.bias' not in each):
      most = TOLERANCE * np.abs(arrays[name]).max()
      np.testing.assert_allclose(params[name], arrays[name], rtol=0, atol=most, err_msg=name, strict=True)


# Compilation is most of it, so one run of each format does.
@pytest.mark.parametrize('stored', dict(reversed(CASES)).items(), indirect=True, ids='-'.join)
def test_a_run_goes_on_twice_to_the_same_bits(stored, tmp_path):
  shutil.copytree(tmp_path, tmp_path / 'again')
  steps = stored.expected['resumed']['steps']
  (one, losses), (other, other_losses) = (formats.resume(folder, steps) for folder in (tmp_path, tmp_path / 'again'))
  assert (formats.checksums(one), losses) == (formats.checksums(other), other_losses)


def test_a_bundle_writes_the_same_texts(stored):
  decoder = Decoder.open(BUNDLE, verify=True)
  assert not differing(decoder.bundle.model, stored.expected['config']['model'], 'model')
  for each in stored.expected['bundle']['written']:
    assert formats.tokens(decoder, each['prompt']) == each['tokens']
    assert ''.join(decoder.generate(each['prompt'])) == each['text']


def test_an_export_has_the_parameters_of_the_stored_bundle(stored):
  kept = open_bundle(BUNDLE)
  # Bundles of format 4 have only rows in bfloat16.
  has_rows_alone = json.loads((BUNDLE / 'config.json').read_text())['format'] == 4
  export(RUN, Path('new'), 'float32' if has_rows_alone else kept.dtype)
  new, old = flatten(open_bundle(Path('new')).weights), flatten(kept.weights)
  assert new.keys() == old.keys()
  for name, value in old.items():
    array = plain(value)
    np.testing.assert_array_equal(plain(new[name]).astype(array.dtype), array, err_msg=name, strict=True)
