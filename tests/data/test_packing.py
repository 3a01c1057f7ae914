"""Packs: how they are filled, what becomes of them in batches, and real ones that are trained on."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from terraformer.cli import load_configs
from terraformer.config import (
  DataConfig,
  LanguageModelConfig,
  LMConfig,
  PackingConfig,
  PrefixLMConfig,
  RunConfig,
  SpanCorruptionConfig,
  UserError,
)
from terraformer.data import batches, packing
from terraformer.models.make import make_model
from terraformer.ops.segments import Segments
from terraformer.training import checkpoint, setup
from terraformer.training.loop import train
from terraformer.training.loss import model_losses
from tests.prepared import DENSE_BLOCK, PLAIN, sentences
from tests.training.test_resume import assert_same_end

LENGTHS = {'inputs_length': 170, 'targets_length': 40}  # of sentences of about 50 tokens


def _examples(count, seed=0):
  lengths = np.random.default_rng(seed).integers(1, (21, 9), (count, 2))
  return [{'inputs': np.full(s, i), 'targets': np.full(t, i)} for i, (s, t) in enumerate(lengths)]


@pytest.mark.parametrize('most', [0, 2])
def test_packs_hold_every_example_once_and_no_more_than_they_have_room_for(most):
  packs = list(packing.first_fit(_examples(500), {'inputs': 30, 'targets': 20}, most))
  assert sorted(example['inputs'][0] for pack in packs for example in pack) == list(range(500))
  assert all(sum(len(example['inputs']) for example in pack) <= 30 for pack in packs)
  assert all(sum(len(example['targets']) for example in pack) <= 20 for pack in packs)
  assert max(map(len, packs)) == (2 if most else 6)


def test_packs_are_nearly_full():
  examples = _examples(2000)
  packs = list(packing.first_fit(examples, {'inputs': 60, 'targets': 60}))
  assert len(packs) * 60 * 0.98 <= sum(len(example['inputs']) for example in examples)


def test_a_row_numbers_the_tokens_of_each_example():
  record = packing.joined([{'targets': np.array([7, 8, 1])}, {'targets': np.array([9, 1])}])
  row = packing.rows(record, {'inputs': 0, 'targets': 7})
  assert row['targets'].tolist() == [7, 8, 1, 9, 1, 0, 0] and row['inputs'].shape == row['inputs_segments'].shape == (
    0,
  )
  assert row['targets_segments'].tolist() == [1, 1, 1, 2, 2, 0, 0] and row['targets_segments'].dtype == np.int32


def _apart(batch):
  """The examples of a batch, (inputs, targets) without padding; of one that is not packed, its rows."""
  names = ('inputs', 'targets')
  segments = [batch.get(f'{name}_segments', batch[name] != 0) for name in names]
  return [
    tuple(
      tuple(batch[name][row][of_name[row] == number].tolist()) for name, of_name in zip(names, segments, strict=True)
    )
    for row in range(len(batch['targets']))
    for number in range(1, 1 + segments[1][row].max())
  ]


def _of_train(config):
  """Examples of one epoch."""
  data = batches.open_prepared(config)
  return _apart(data.train_batches(data.size('train'), 0).batch(0))


def test_prepared_packs_are_the_examples_and_only_those_of_training(fake_prepared):
  alone, packed = (fake_prepared(packing=option, **LENGTHS) for option in (None, PackingConfig()))
  assert sorted(_of_train(packed)) == sorted(_of_train(alone))
  one, other = (next(batches.open_prepared(config).eval_batches('validation', 11)) for config in (alone, packed))
  assert one.keys() == other.keys() and np.array_equal(one['targets'], other['targets'])
  counts = [batches.open_prepared(config).unigram_counts for config in (alone, packed)]
  np.testing.assert_array_equal(*counts)


def test_the_manifest_tells_what_packing_was_good_for(fake_prepared):
  config = fake_prepared(packing=PackingConfig(), **LENGTHS)
  manifest = batches.open_prepared(config).manifest
  tokens = sum(len(inputs) + len(targets) for inputs, targets in _of_train(config))
  n_packs = manifest.examples['train']
  assert manifest.packed == {
    'examples': 40,
    'packs': n_packs,
    'padding_before': 1 - tokens / (210 * 40),
    'padding_after': 1 - tokens / (210 * n_packs),
  }
  assert n_packs < 40 / 2.5


def test_what_is_cut_to_fit_a_pack_is_counted(fake_prepared, tokenizer):
  lengths = [len(tokenizer.encode(text)) for text in sentences(40, seed=len('train'))]
  row = sorted(lengths)[20] + 1  # with an end of sequence the median fits
  config = fake_prepared(packing=PackingConfig(), inputs_length=row, targets_length=60)
  manifest = batches.open_prepared(config).manifest
  assert manifest.dropped['features cut'] == sum(length + 1 > row for length in lengths) > 0
  assert manifest.tokens['train']['inputs'] == sum(min(length + 1, row) for length in lengths)
  first = next(at for at, length in enumerate(lengths) if length + 1 > row)
  assert manifest.first_dropped['features cut'] == f'train, part 0, example {first}: {lengths[first]} tokens in inputs'


def test_packed_text_has_no_example_of_two_documents(fake_prepared, tokenizer):
  config = fake_prepared(
    'text', has_inputs=False, objective=LMConfig(), packing=PackingConfig(3), inputs_length=0, targets_length=40
  )
  documents = [(*tokenizer.encode(text), 1) for text in sentences(40, seed=len('train'))]
  pieces = [document[start : start + 40] for document in documents for start in range(0, len(document), 40)]
  assert sorted(_of_train(config)) == sorted(((), piece) for piece in pieces if len(piece) > 1)


def test_training_that_prepares_the_data_prints_what_packing_saves(fake_prepared, monkeypatch, capsys):
  config = fake_prepared(packing=PackingConfig(), **LENGTHS)
  manifest = batches.open_prepared(config).manifest
  monkeypatch.setattr(setup, 'is_prepared', lambda config: False)
  monkeypatch.setattr(setup, 'ensure_prepared', lambda config, show_progress: manifest)
  setup.open_data(RunConfig(data=config), show_progress=False)
  assert f'40 training examples are in {manifest.packed["packs"]} packs: padding is ' in capsys.readouterr().err


def test_other_packs_than_those_of_the_config_are_refused(fake_prepared):
  alone, packed = (fake_prepared(packing=option, **LENGTHS) for option in (None, PackingConfig()))
  for config, changed, words in (
    (alone, {'packing': PackingConfig()}, 'prepared with data.packing = None, not PackingConfig;'),
    (packed, {'packing': None}, 'prepared with data.packing = PackingConfig, not None;'),
    (packed, {'packing': PackingConfig(4)}, 'prepared with data.packing.max_segments = 0, not 4;'),
    (packed, {'inputs_length': 80}, 'prepared with data.inputs_length = 170, not 80;'),
  ):
    with pytest.raises(UserError, match=words):
      batches.open_prepared(dataclasses.replace(config, **changed))


def test_running_text_is_packed_for_language_modelling_alone(fake_prepared):
  sentence = 'DataConfig.packing: running text can be packed only with the objective LMConfig, found PrefixLMConfig'
  with pytest.raises(UserError, match=sentence):
    DataConfig(objective=PrefixLMConfig(), packing=PackingConfig())
  with pytest.raises(UserError, match=sentence):
    fake_prepared('text', has_inputs=False, packing=PackingConfig())
  with pytest.raises(UserError, match='found SpanCorruptionConfig'):
    DataConfig(inputs_length=512, targets_length=114, objective=SpanCorruptionConfig(), packing=PackingConfig())


@pytest.fixture(scope='module')
def run(really_prepared, gin_file):
  """A run on pairs that seqio has prepared and this library has packed."""
  stored = json.loads((really_prepared[0] / 'd/local_files/manifest.json').read_text())['config']
  bindings = {
    'DataConfig.source': '@config.LocalFilesConfig()',
    'DataConfig.directory': repr(stored['directory']),
    'LocalFilesConfig.train': tuple(stored['source']['train']),
    'TokenizerConfig.path': repr(stored['tokenizer']['path']),
    'TokenizerConfig.sentinels': 20,
    'DataConfig.packing': '@config.PackingConfig()',
    **{f'DataConfig.{name}': length for name, length in LENGTHS.items()},
    'TerraformerConfig.max_length': 170,
    'TerraformerConfig.n_encoder_layers': 1,
    'TerraformerConfig.n_decoder_layers': 1,
    'TrainConfig.batch_size': 4,
    'TrainConfig.steps': 4,
    'TrainConfig.eval_every': 0,
    'TrainConfig.sample_every': 0,
    'CheckpointConfig.every': 2,
  }
  return load_configs([str(gin_file)], [f'config.{name} = {value}' for name, value in bindings.items()])[0]


def _example_losses(model, batch):
  """The summed loss of each example, by its tokens."""
  segments = Segments(batch['inputs_segments'], batch['targets_segments']) if 'inputs_segments' in batch else None
  losses = jax.jit(model_losses)(model, batch['inputs'], batch['targets'], segments=segments)
  loss_BxT = np.asarray(losses['loss_BxT'] * losses['mask'])
  number_BxT = batch.get('targets_segments', batch['targets'] != 0)
  sums = [
    loss_BxT[row][number_BxT[row] == number].sum()
    for row in range(len(loss_BxT))
    for number in range(1, 1 + number_BxT[row].max())
  ]
  return dict(zip(_apart(batch), sums, strict=True))


def test_no_example_of_a_real_pack_sees_another(run, really_prepared):
  alone_config = dataclasses.replace(run.data, directory=str(really_prepared[0] / 'e'), packing=None)
  data, alone_data = map(batches.open_prepared, (run.data, alone_config))
  model = make_model(run.model, key=jax.random.key(0))
  packed = _example_losses(model, data.train_batches(data.size('train'), 0).batch(1))
  alone = _example_losses(model, alone_data.train_batches(alone_data.size('train'), 0).batch(0))
  assert data.size('train') < len(alone) / 2.5 and packed.keys() == alone.keys()
  for example, loss in alone.items():
    assert abs(packed[example] - loss) < 1e-4


def test_a_packed_run_goes_on_as_if_it_had_never_stopped(run, tmp_path):
  dense = LanguageModelConfig(452, 210, n_layers=1, decoder=DENSE_BLOCK, residual=PLAIN)
  run = dataclasses.replace(run, model=dense)
  train(run, tmp_path / 'whole', show_progress=False)
  shutil.copytree(tmp_path / 'whole', tmp_path / 'stopped')
  shutil.rmtree(checkpoint.folder(tmp_path / 'stopped') / '4')
  assert train(run, tmp_path / 'stopped', show_progress=False).step == 4
  assert_same_end(tmp_path / 'whole', tmp_path / 'stopped', step=4)
