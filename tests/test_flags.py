"""Whatever number a flag is given, the command ends in a sentence or does what the number means."""

import argparse
import re
import shutil

import pytest

from terraformer.bench.decode import VARIANTS
from terraformer.cli import _COMMANDS, main
from terraformer.commands.decoding import DECODE_FLAGS
from terraformer.flags import make_parser

# For commands that take their time.
FEW = ['0', '-1', str(2**31 - 1), str(10**30), '5e-324', 'nan', 'inf', '-inf']
NUMBERS = [
  *FEW,
  '1.797e308',
  *map(str, (2**31, 2**32, 2**63 - 1, 2**63, -(2**63))),
  '2.2e-308',
  '3.4e38',
  '1e-38',
  '1e-45',
]
ODDITIES = ['', ' ', 'x', '1_000', '\u0661', '0x10', '1e3', '1.5', '1e999', '9' * 5000]
# Without these, those flags have nothing to say.
BESIDE = {'length_penalty': ['--beams=2'], 'top_k': ['--temperature=1'], 'top_p': ['--temperature=1']}


def flags_of(parser, path=()):
  """(command, flag) of every flag whose text is not taken as it is."""
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      for name, command in action.choices.items():
        yield from flags_of(command, (*path, name))
    elif action.type is not None:
      yield ' '.join(path), action


FLAGS = list(flags_of(make_parser(_COMMANDS)))
# Those of the configuration are read alike for both commands, and decoding alone is quick.
RUN = [
  (command, action)
  for command, action in FLAGS
  if (command, action.dest in DECODE_FLAGS) != ('evaluate', True) and command != 'serve'  # which has a test of its own
]


def name_of(value):
  return value if isinstance(value, str) else value.dest


def texts(action, values):
  """The values, and beside a sensible one for a flag of several numbers."""
  separators = set(':,/') & set(action.metavar or '')
  return [
    *values,
    *(text for mark in separators for value in values for text in (f'1{mark}{value}', f'{value}{mark}1')),
  ]


def refusal(action, text):
  """What is said of a text; None where it is taken."""
  try:
    action.type(text)
  except argparse.ArgumentTypeError as error:
    return str(error)
  return None


@pytest.mark.parametrize(('command', 'action'), FLAGS, ids=name_of)
def test_a_text_that_is_no_value_is_refused_in_words_for_users(command, action):
  for text in texts(action, [*ODDITIES, *NUMBERS]) + ['1:1:1', '1,1,x', '1/1/1', ':', ',', '/']:
    said = refusal(action, text)  # of anything else that is raised, argparse names the function
    assert said is None or re.fullmatch('expected .+, found .+', said) and len(said) < 200


def test_the_flags_of_the_parser_are_all_that_take_a_number():
  """A flag of numbers without a `type` is a text for argparse, and nobody would look at it here."""
  texts_alone = (
    'stdin gin_file gin_bindings module output workdir coordinator_address bundle input input_file field stop'
  )
  for command, action in every_action(make_parser(_COMMANDS)):
    if action.type is None and action.nargs != 0 and action.choices is None:
      of_others = 'topology scratch chart checkpoint config vocabulary report host api_key log_file task'
      assert action.dest in (*texts_alone.split(), *of_others.split()), (command, action.dest)


def every_action(parser, path=()):
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      for name, command in action.choices.items():
        yield from every_action(command, (*path, name))
    else:
      yield ' '.join(path), action


HELP = """
import sys
from terraformer.cli import main
try:
  main([*sys.argv[1:], '--help'])
finally:
  slow = {'jax', 'flax', 'grain', 'orbax', 'optax', 'tensorflow', 'seqio'}
  print('SLOW', sorted(slow & {name.split('.')[0] for name in sys.modules}))
"""


@pytest.mark.parametrize('command', ['', 'train', 'decode', 'serve', 'bench decode'])
def test_help_waits_for_no_library_that_takes_seconds_to_import(python, command):
  done = python(HELP, *command.split())
  assert 'usage: ' in done.stdout and done.stdout.endswith('SLOW []\n')


def test_the_variants_of_the_parser_are_those_of_the_benchmark():
  (action,) = [action for _, action in FLAGS if action.dest == 'variants']
  assert action.default == VARIANTS


@pytest.fixture(scope='module')
def least(bundle, finished_run, gin_file, tmp_path_factory):
  """What every command needs in order to do little, by its name."""
  # A copy: a run that goes on writes its summary again, which tests of the run itself read.
  finished_run = shutil.copytree(finished_run, tmp_path_factory.mktemp('least') / 'run')
  gin = f'--gin_file={gin_file}'
  sizes = ['--d_model=8', '--n_heads=1', '--n_rounds=1', '--chunk_length=8', '--repeats=1', '--lengths=16']
  return {
    'prepare': [gin],
    'train': [gin, f'--workdir={finished_run}', '--quiet', '--gin_bindings=config.CheckpointConfig.best = True'],
    'evaluate': [f'--workdir={finished_run}', '--limit=1', '--max_tokens=1', '--json'],
    'decode': [f'--bundle={bundle}', '--input=Red green blue.'],
    'describe': [gin, '--json'],
    'bench attention': sizes,
    'bench decode': [gin, '--variants=ff_qkv_output', '--tokens=1', '--context=4'],
    'bench input': ['--inputs_length=64', '--targets_length=24', '--batch_size=1000', '--examples=1000'],
  }


@pytest.mark.parametrize(('command', 'action'), RUN, ids=name_of)
def test_a_number_that_is_taken_has_a_meaning(capsys, least, command, action):
  for text in texts(action, NUMBERS if command == 'decode' else FEW):
    if refusal(action, text) is None:
      beside = [*least[command], *BESIDE.get(action.dest, [])]
      status = main([*command.split(), *beside, f'{action.option_strings[0]}={text}'])
      out, err = capsys.readouterr()
      if status == 2:
        assert re.fullmatch('terraformer .+: (expected .+|.+ needs [0-9,]+ GB of (memory|disk); .+)\n', err), text
      else:
        assert status == 0, text
        assert out.strip() or 'is skipped' in err or (action.dest, text) == ('max_tokens', '0'), text


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--num_processes=2', '--process_id=2'], '--process_id: expected less than --num_processes (2), found 2'),
    (['--num_processes=2'], '--process_id: expected together with --'),
    (['--process_id=0'], '--num_processes: expected together with --'),
    *(
      ([f'--coordinator_address={address}', '--num_processes=1', '--process_id=0'], 'expected HOST:PORT with a port')
      for address in ('', 'host', 'host:', 'host:x', 'host:0', 'host:65536', ':1', f'host:{"9" * 5000}')
    ),
  ],
)
def test_a_process_that_there_cannot_be_is_refused(capsys, tmp_path, flags, words):
  assert main(['train', f'--workdir={tmp_path}', '--coordinator_address=localhost:1', *flags]) == 2
  assert words in capsys.readouterr().err


@pytest.mark.parametrize('topology', ['', 'foo', '4x4', 'v5e', 'v5e:', 'v5e:0x0', 'v5e:-1x4', f'v5e:{10**30}x4'])
def test_a_topology_that_there_is_not_is_refused(capsys, monkeypatch, gin_file, topology):
  for name in ('JAX_PLATFORMS', 'TPU_SKIP_MDS_QUERY', 'TPU_WORKER_HOSTNAMES', 'TPU_ACCELERATOR_TYPE'):
    monkeypatch.setenv(name, 'cpu')
  assert main(['compile', f'--gin_file={gin_file}', f'--topology={topology}']) == 2
  message = 'unknown chip; use one of .+|expected CHIP:SLICE, as in v5e:4x4'
  assert re.fullmatch(f'terraformer compile: --topology .*: ({message})\n', capsys.readouterr().err)


def test_attention_that_no_machine_has_memory_for_is_left_out(capsys):
  assert main(['bench', 'attention', '--lengths=2000000000', '--max_bytes=inf']) == 0
  assert capsys.readouterr().err.count('is skipped') == 2
