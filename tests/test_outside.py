"""A user's own attention, feed-forward block and data source, through every command, each in a process of its own."""

import json

import pytest

from terraformer.training import checkpoint
from terraformer.training.metrics import read_metrics
from tests import outside


@pytest.fixture(scope='module')
def run(terraformer, tmp_path_factory):
  """The folder of a run that was prepared, trained, resumed and exported, and what the commands said there."""
  folder = tmp_path_factory.mktemp('outside')
  (folder / f'{outside.NAME}.py').write_text(outside.SOURCE)
  (folder / 'own.gin').write_text(outside.GIN)
  module, gin = f'--module={outside.NAME}', '--gin_file=own.gin'

  def said(*arguments):
    process = terraformer(*arguments, cwd=folder)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return output

  longer = '--gin_bindings=config.TrainConfig.steps = 6'
  return folder, {
    'prepare': said('prepare', module, gin),
    'train': said('train', module, gin, '--workdir=run', '--quiet'),
    'resume': said('train', module, '--workdir=run', '--quiet', longer),
    'at once': said('train', module, gin, '--workdir=whole', '--quiet', longer),
    'export': said('export', module, '--workdir=run', '--output=bundle', '--dtype=bfloat16'),
    'decode': said('decode', module, '--bundle=bundle', '--input=3 4 5', '--max_tokens=6', '--json'),
    'describe': said('describe', module, gin, '--context=16', '--json'),
  }


def test_its_texts_are_prepared(run):
  folder, said = run
  assert 'prepared/counting: prepared, 120 train, 8 validation, 8 test examples' in said['prepare']
  config = json.loads((folder / 'prepared' / 'counting' / 'manifest.json').read_text())['config']
  assert config['source'] == {'kind': f'{outside.NAME}:CountingConfig', 'examples': 120}


def test_it_is_trained_and_goes_on_as_if_it_had_never_stopped(run):
  folder, said = run
  assert '4 steps done' in said['train'] and '6 steps done' in said['resume']
  losses = [
    {row['step']: row['loss'] for row in read_metrics(folder / name) if row['split'] == 'train'}
    for name in ('run', 'whole')
  ]
  assert losses[0][6] == losses[1][6]
  assert checkpoint.steps(folder / 'run')[0] == 6


def test_it_is_exported_and_decoded(run):
  folder, said = run
  assert 'step 6 of run' in said['export']
  stored = json.loads((folder / 'bundle' / 'config.json').read_text())['model']['decoder']
  assert stored['attention']['kind'] == f'{outside.NAME}:WindowConfig'
  assert stored['feed_forward']['kind'] == f'{outside.NAME}:TopTwoFFConfig'
  assert isinstance(json.loads(said['decode'])['output'], str)


def test_its_cost_is_that_of_two_rows_a_block(run):
  parts = json.loads(run[1]['describe'])['model']['parts']
  feed_forward = parts['decoder feed-forward']
  n_layers, n_matrices, d_ff, block_size, d_model = 2, 2, 64, 8, 32
  of_matrices = n_layers * n_matrices * d_ff * d_model
  assert feed_forward['parameters'] - feed_forward['read'] == of_matrices - of_matrices * 2 // block_size


def test_without_its_module_a_command_says_which_to_give(run, terraformer):
  folder, _ = run
  for command in (
    ['train', '--workdir=run'],
    ['decode', '--bundle=bundle', '--input=3'],
  ):
    process = terraformer(*command, cwd=folder)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and f'--module={outside.NAME}' in errors, errors
    assert len(errors.splitlines()) == 1
