"""Bad input ends in one sentence, exit status 2, no traceback, and nothing overwritten."""

import json
import re
import shutil

import pytest

from terraformer.cli import load_configs, main
from terraformer.config import AdamWConfig, DecodeConfig, DenseFFConfig, RunConfig, UserError, from_dict, to_dict


def said(capsys, *arguments):
  """Exit status and what a command wrote to the standard error."""
  status = main([str(argument) for argument in arguments])
  return status, capsys.readouterr().err


@pytest.mark.parametrize(
  ('binding', 'words'),
  [
    ('config.TrainConfig.stesp = 3', "TrainConfig has no field 'stesp'; did you mean steps?"),
    ('config.TrianConfig.steps = 3', 'there is no config.TrianConfig; did you mean config.TrainConfig?'),
    (
      'config.TrainConfig.steps = three',
      "'three' is not a value; give a number, a quoted text, True, None",
    ),
    ('config.TrainConfig.steps: 3', 'write config.CLASS.FIELD = VALUE'),
    ('TrainConfig.steps = 3', 'TrainConfig: write config.TrainConfig (names of configurations start with config.)'),
    ('TrianConfig.steps = 3', 'TrianConfig: write config.TrainConfig'),
    ('confg.TrainConfig.steps = 3', 'confg: did you mean config?'),
    ('config.TrainConfig.optimizer = @config.AdamConfig()', 'no config.AdamConfig; did you mean config.AdamWConfig?'),
    (
      'config.TrainConfig.optimizer = @config.Momentum()',
      'this field takes config.AdafactorConfig, config.AdamWConfig',
    ),
    ('config.BlockConfig.feed_forward = config.DenseFFConfig', 'write @config.DenseFFConfig()'),
    ("config.BlockConfig.feed_forward = 'dense'", 'or SwitchFFConfig (in gin, @config.DenseFFConfig())'),
    ('config.DecodeConfig.minp = 3', "DecodeConfig has no field 'minp'; its fields are max_tokens, temperature, top_k"),
    ('config.TrainConfig.checkpoints.every = 3', 'has the name config.CheckpointConfig.FIELD'),
    ('config.TrainConfig.checkpoints = true', "'true' is not a value; write True"),
    ('config.LocalFilesConfig.train = a/b.txt', "'a/b.txt' is not a value; give a number, a quoted text"),
    ('config.TrainConfig.steps = 0', 'TrainConfig.steps: expected at least 1, found 0'),
    ("config.TrainConfig.steps = '3'", "TrainConfig.steps: expected a whole number, found '3'"),
    ('config.TrainConfig.steps', '--gin_bindings'),
    ('config.TrainConfig.steps = %STEPS', 'these values do not make a configuration'),
    ('config.TrainConfig.seed = 5000000000', 'TrainConfig.seed: expected less than 2**32'),
    ('config.TrainConfig.steps = 0x' + 'f' * 5000, 'these values do not make a configuration'),
    ('config.TrainConfig.steps = """3', 'a quote is not closed'),
    ('config.TrainConfig.steps = (3', 'a bracket is not closed'),
    ('config.TrainConfig.steps = ' + '(' * 900, 'includes or brackets are nested too deeply'),
    ('config.TrainConfig.steps = @config.from_dict()', 'these values do not make a configuration'),
    ('config.TrainConfig.steps = {[]: 3}', "unhashable type: 'list'"),
    ('config.TrainConfig.steps = ' + '9' * 5000, 'Exceeds the limit'),
    ('config.RunConfig.train = @config.RunConfig()', 'these values do not make a configuration'),
    ('config.DenseFFConfig.d_ff = 3', 'this configuration does not use config.DenseFFConfig.d_ff'),
    (
      'config.BlockConfig.d_model = 100',
      'BlockConfig.d_model: expected a multiple of SparseProjectionConfig.n_modules',
    ),
    ('config.BlockConfig.n_heads = 3', 'BlockConfig.d_model: expected a multiple of n_heads (3), found 256'),
    ('config.SparseOutputConfig.n_modules = 5', 'expected a multiple of SparseOutputConfig.n_modules (5), found 8192'),
    ('config.DataConfig.inputs_length = 5000', 'TerraformerConfig.max_length: expected at least the longest example'),
  ],
)
@pytest.mark.parametrize('command', ['train', 'prepare', 'decode'])
def test_a_bad_binding_is_named(capsys, tmp_path, command, binding, words):
  where = {'train': [f'--workdir={tmp_path / "run"}'], 'prepare': [], 'decode': ['--bundle=none', '--input=x']}[command]
  status, errors = said(capsys, command, *where, '--gin_bindings', binding)
  assert status == 2
  assert words in errors and errors.startswith(f'terraformer {command}: ') and errors.count('\n') == 1


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    (None, 'nowhere.gin'),
    ('from terraformer import confg\n', 'confg'),
    ('from __gin__ import dynamic_registration\nfrom terraformer import config\nconfig.TrainConfig.stesp = 3', 'stesp'),
    ("include 'gin_configs/none.gin'", 'none.gin'),
    ("include '{}'", 'includes itself'),
  ],
)
def test_a_bad_gin_file_is_named(capsys, tmp_path, text, words):
  path = tmp_path / 'nowhere.gin'
  if text is not None:
    path.write_text(text.replace('{}', str(path)))
  status, errors = said(capsys, 'train', f'--workdir={tmp_path / "run"}', f'--gin_file={path}')
  assert status == 2
  assert words in errors and errors.count('\n') == 1


@pytest.mark.parametrize(
  'binding', ['config.BlockConfig.n_heads = 3', 'config.TrainConfig.steps = 0', "config.DataConfig.name = 'a\\nb' * 2"]
)
def test_what_a_binding_is_refused_with_is_one_line(binding):
  with pytest.raises(UserError) as error:
    load_configs([], [binding])
  assert str(error.value).isprintable()


def test_without_gin_the_configs_are_those_of_the_dataclasses():
  run, decode, _ = load_configs([], [])
  assert run == RunConfig() and decode == DecodeConfig()


def test_a_binding_has_an_effect_however_deep():
  bindings = [
    'config.CosineScheduleConfig.peak = 0.5',
    'config.TrainConfig.optimizer = @config.AdamWConfig()',
    'config.BlockConfig.feed_forward = @config.DenseFFConfig()',
    'config.DenseFFConfig.d_ff = 77',
    'encoder/config.BlockConfig.dropout = 0.0',
    'config.TerraformerConfig.encoder = @encoder/config.BlockConfig()',
    'config.DecodeConfig.max_tokens = 5',
  ]
  run, decode, text = load_configs([], bindings)
  assert isinstance(run.train.optimizer, AdamWConfig) and run.train.optimizer.schedule.peak == 0.5
  assert run.model.encoder.feed_forward == run.model.decoder.feed_forward == DenseFFConfig(77)
  assert (run.model.encoder.dropout, run.model.decoder.dropout) == (0.0, 0.1)
  assert decode.max_tokens == 5
  assert load_configs([], [], text)[:2] == (run, decode)
  assert from_dict(json.loads(json.dumps(to_dict(run)))) == run


def test_decoding_refuses_what_a_bundle_fixes(capsys):
  status, errors = said(
    capsys, 'decode', '--bundle=none', '--input=x', '--gin_bindings', 'config.TrainConfig.steps = 3'
  )
  assert status == 2 and 'set only fields of DecodeConfig' in errors


@pytest.mark.parametrize('command', ['evaluate', 'export'])
def test_a_run_without_checkpoint_is_named(capsys, tmp_path, command):
  more = [f'--output={tmp_path / "bundle"}'] if command == 'export' else []
  status, errors = said(capsys, command, f'--workdir={tmp_path}', *more)
  assert status == 2
  assert errors == f'terraformer {command}: {tmp_path}: there is no checkpoint; give the folder of a run that has one\n'
  assert not (tmp_path / 'bundle').exists()


@pytest.mark.parametrize('command', ['evaluate', 'export'])
def test_a_half_written_checkpoint_is_named_and_the_one_before_used(capsys, finished_run, tmp_path, command):
  run = shutil.copytree(finished_run, tmp_path / 'run')
  shutil.rmtree(run / 'checkpoints' / '24' / 'state')
  status, errors = said(capsys, command, f'--workdir={run}', *([f'--output={tmp_path}/b'] * (command == 'export')))
  assert status == 0
  assert '/24/state/' in errors and 'found no such file; looking for an older checkpoint' in errors


def test_a_damaged_checkpoint_stops_the_run_by_config(capsys, finished_run, tmp_path):
  run = shutil.copytree(finished_run, tmp_path / 'run')
  shutil.rmtree(run / 'checkpoints' / '24' / 'state')
  binding = '--gin_bindings=config.CheckpointConfig.older_if_damaged = False'
  status, errors = said(capsys, 'train', f'--workdir={run}', binding)
  assert status == 2
  assert errors.count('\n') == 1 and 'checkpoints/24/state/' in errors and 'found no such file' in errors
  assert sorted(path.name for path in (run / 'checkpoints').iterdir()) == ['16', '20', '24']


def test_resuming_with_another_model_is_refused(capsys, finished_run, gin_file):
  before = sorted((path, path.stat().st_mtime_ns) for path in finished_run.rglob('*'))
  status, errors = said(
    capsys, 'train', f'--workdir={finished_run}', f'--gin_file={gin_file}',
    '--gin_bindings', 'config.SRUConfig.width = 5',
  )  # fmt: skip
  assert status == 2
  assert f'{finished_run} was started with model.encoder.recurrence.width = 4, not 5; leave out the change' in errors
  assert sorted((path, path.stat().st_mtime_ns) for path in finished_run.rglob('*')) == before


def test_a_vocabulary_larger_than_the_model_is_refused(capsys, gin_file, tmp_path):
  status, errors = said(
    capsys, 'train', f'--workdir={tmp_path / "run"}', f'--gin_file={gin_file}',
    '--gin_bindings', 'config.TerraformerConfig.vocab_size = 340',
  )  # fmt: skip
  assert status == 2
  assert 'TerraformerConfig.vocab_size: expected at least the vocabulary of the data (342), found 340' in errors


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(capsys, gin_file, tmp_path):
  status, errors = said(
    capsys, 'train', f'--workdir={tmp_path}', f'--gin_file={gin_file}', '--quiet',
    '--gin_bindings', 'config.CosineScheduleConfig.peak = 1e30',
  )  # fmt: skip
  assert status == 3
  assert 'expected a finite loss and gradient norm' in errors and 'on the examples [' in errors
  assert not [path for path in (tmp_path / 'checkpoints').iterdir() if path.name.isdigit()]


@pytest.mark.parametrize(
  ('name', 'data', 'words'),
  [
    ('missing.txt', None, 'missing.txt: no such file'),
    ('empty.txt', b'', 'empty.txt: the text is empty'),
    ('latin.txt', b'caf\xe9', 'expected UTF-8, found the byte 0xe9 at offset 3'),
    (
      'rows.jsonl',
      b'{"inputs": "a"}\n{"input": "b"}',
      "line 2: expected the field 'inputs', found the fields ['input']; name yours with --field=NAME",
    ),
    ('bad.jsonl', b'{"inputs": ', 'line 1 is not valid JSON at character'),
  ],
)
def test_a_bad_input_file_is_named(capsys, bundle, tmp_path, name, data, words):
  if data is not None:
    (tmp_path / name).write_bytes(data)
  status, errors = said(capsys, 'decode', f'--bundle={bundle}', f'--input_file={tmp_path / name}')
  assert status == 2
  assert words in errors and name in errors and errors.count('\n') == 1


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ([], 'give exactly one of --input, --input_file and - (standard input); 0 were given'),
    (['--input=a', '-'], 'give exactly one of --input, --input_file and - (standard input); 2 were given'),
    (['--input= '], 'the text is empty'),
  ],
)
def test_exactly_one_text_is_expected(capsys, bundle, arguments, words):
  status, errors = said(capsys, 'decode', f'--bundle={bundle}', *arguments)
  assert status == 2 and words in errors and errors.count('\n') == 1


@pytest.mark.parametrize('share', ['2/2', '-1/2', '1', 'a/b'])
def test_a_share_that_is_none_is_refused(capsys, share):
  with pytest.raises(SystemExit) as ended:
    main(['prepare', f'--shard={share}'])
  assert ended.value.code == 2 and '--shard' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['prepare', 'vocab', 'train', 'evaluate', 'export', 'decode'])
def test_help_says_what_a_command_is_for(capsys, command):
  with pytest.raises(SystemExit) as ended:
    main([command, '--help'])
  text = capsys.readouterr().out
  assert ended.value.code == 0 and '--gin_file' in text and '--gin_bindings' in text and len(text) > 600


def test_an_evaluation_prints_examples_and_baselines_and_keeps_all_texts(capsys, finished_run):
  assert main(['evaluate', f'--workdir={finished_run}', '--limit=7', '--examples=2']) == 0
  text = capsys.readouterr().out
  assert text.count('--- example') == 2
  for words in ('perplexity', 'unigram model', 'token accuracy', 'ROUGE-1', 'ROUGE-2', 'ROUGE-Lsum', 'first ten words'):
    assert words in text
  assert re.search(r"^loss .* nats per token, .* with another text's source: the model .*uses its source$", text, re.M)
  assert re.search(r'^ *distinct texts +[0-9.]+% ', text, re.M)
  rows = [json.loads(line) for line in (finished_run / 'evaluation_test.jsonl').read_text().splitlines()]
  assert len(rows) == 7 and rows[0].keys() == {'source', 'reference', 'prediction'}


def test_a_file_in_the_place_of_a_folder_is_refused(capsys, gin_file):
  status, errors = said(capsys, 'train', f'--workdir={gin_file}', f'--gin_file={gin_file}')
  assert status == 2 and errors == f'terraformer train: {gin_file} is a file; --workdir must be a folder\n'


def test_an_address_in_the_place_of_a_folder_is_refused(capsys, gin_file, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  status, errors = said(capsys, 'train', '--workdir=gs://bucket/run', f'--gin_file={gin_file}')
  assert status == 2
  assert 'is an address, not a folder; mount the bucket' in errors
  assert not list(tmp_path.iterdir())


def test_a_run_leaves_the_profile_that_was_asked_for(finished_run):
  (profile,) = (finished_run / 'tensorboard' / 'plugins' / 'profile').glob('*/*.xplane.pb')
  assert profile.stat().st_size > 1000


def test_a_run_leaves_a_summary_with_pictures(finished_run):
  text = (finished_run / 'summary.md').read_text()
  for words in ('step 24 of 24', 'Where the time went', 'Overhead of the loop', 'Step times', 'd_model = 16'):
    assert words in text
  assert "with another text's source: the model" in text and '| loss with shuffled sources |' in text
  pictures = re.findall(r'!\[.*\]\((.*)\)', text)
  assert pictures == ['loss.png', 'step_times.png', 'gradient_norms.png', 'units.png']
  for picture in pictures:
    assert (finished_run / picture).read_bytes().startswith(b'\x89PNG')
