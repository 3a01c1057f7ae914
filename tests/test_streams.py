"""Standard streams that are closed, full, or pipes whose other end has gone: never a traceback, and nothing lost.

Each process is a real one. The cheap commands are tried in every run of the suite, all of them in `make test-slow`.
"""

import importlib.util
import os

import pytest

from terraformer.data.tokenizer import Tokenizer
from terraformer.decode.bundle import open_bundle
from tests.prepared import sentences

CLOSED = {'stdin': '<&-', 'stdout': '>&-', 'stderr': '2>&-'}  # as a shell has it
SENTENCES = {'closed': 'it is closed', 'full': 'no space left on device'}
LEFT = 141  # as a shell tells of a process that ended by SIGPIPE


@pytest.fixture
def ended(terraformer):
  """Returns run(arguments, stdout='full', ...) -> status, output and messages of a process with such streams."""

  def run(arguments, **states):
    closed, opened = ' '.join(CLOSED[name] for name, state in states.items() if state == 'closed'), {}
    for name, state in states.items():
      if state == 'full':
        opened[name] = os.open('/dev/full', os.O_WRONLY)
      elif state == 'left':
        reader, opened[name] = os.pipe()
        os.close(reader)

    process = terraformer(*arguments, shell=f'exec "$@" {closed}', **opened)
    for number in opened.values():
      os.close(number)
    output, errors = process.communicate(timeout=200)
    return process.returncode, output or '', errors or ''

  return run


@pytest.fixture
def text_bindings(tmp_path):
  """Flags of a small task of local files."""
  (tmp_path / 'text.txt').write_text('\n\n'.join(sentences(300)))
  values = {'LocalFilesConfig.train': (str(tmp_path / 'text.txt'),), 'TokenizerConfig.size': 450}
  bindings = [f'--gin_bindings=config.{name} = {value!r}' for name, value in values.items()]
  return ['--gin_file=gin_configs/data/local_files.gin', *bindings]


@pytest.fixture
def arguments(request, tmp_path, gin_file):
  """Returns those of a command by its name; what is not asked for is not made."""

  def of(name):
    made = request.getfixturevalue
    gin = f'--gin_file={gin_file}'
    if name == '--help':
      return ['--help']
    if name == 'vocab':
      return ['vocab', *made('text_bindings'), f'--output={tmp_path / "vocabulary.model"}']
    if name in ('train', 'evaluate', 'export'):
      flags = {
        'train': ['--quiet'],
        'evaluate': ['--perplexity', '--limit=8'],
        'export': [f'--output={tmp_path / "out"}'],
      }
      return [name, f'--workdir={made("finished_run")}', *flags[name]]
    if name == 'decode':
      return ['decode', f'--bundle={made("bundle")}', '--input=red tree', '--stats']
    flags = {
      'prepare': [gin],
      'describe': [gin, '--context=8'],
      'compile': [gin, '--topology=v5e:2x2'],
      'bench attention': ['--lengths=64', '--d_model=16', '--chunk_length=16', '--repeats=1'],
      'bench decode': [gin, '--context=2', '--tokens=2', '--variants=ff'],
      'bench input': ['--examples=300', '--batch_size=8'],
    }
    return [*name.split(), *flags[name]]

  return of


OFTEN = ['--help', 'prepare', 'describe', 'decode']
SELDOM = ['vocab', 'train', 'evaluate', 'export', 'compile', 'bench attention', 'bench decode', 'bench input']
COMMANDS = [*OFTEN, *(pytest.param(name, marks=pytest.mark.slow) for name in SELDOM)]


@pytest.fixture(autouse=True)
def _needs_a_compiler(request):
  name = getattr(request.node, 'callspec', None) and request.node.callspec.params.get('command')
  if name == 'compile' and importlib.util.find_spec('libtpu') is None:
    pytest.skip('libtpu is not installed')


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('state', SENTENCES)
def test_output_that_cannot_be_written_is_told_in_a_sentence(ended, arguments, command, state):
  status, _, errors = ended(arguments(command), stdin='closed', stdout=state)
  name = 'terraformer' if command == '--help' else f'terraformer {command.split()[0]}'
  assert 'Traceback' not in errors and 'Exception' not in errors
  assert errors.endswith(f'{name}: the standard output cannot be written: {SENTENCES[state]}\n')
  assert status == 1


@pytest.mark.parametrize('command', COMMANDS)
def test_a_reader_that_left_hears_nothing(ended, arguments, command):
  status, _, errors = ended(arguments(command), stdout='left')
  assert status == LEFT
  assert 'terraformer' not in errors and 'Traceback' not in errors and 'Exception' not in errors


@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize('state', ['closed', pytest.param('full', marks=pytest.mark.slow), 'left'])
def test_messages_that_cannot_be_written_are_lost_alone(ended, arguments, command, state):
  status, output, _ = ended(arguments(command), stderr=state)
  assert status == 0
  assert output and 'tokens read' not in output  # the times of `decode --stats` are messages


@pytest.mark.parametrize('command', ['prepare', *(pytest.param(name, marks=pytest.mark.slow) for name in SELDOM)])
def test_with_no_stream_at_all_the_status_tells(ended, arguments, command):
  assert ended(arguments(command), stdin='closed', stdout='closed', stderr='closed')[0] == 1


@pytest.mark.parametrize('state', ['closed', 'full'])
@pytest.mark.parametrize('flags', [['--help'], ['--json']], ids=' '.join)
def test_help_of_a_command_and_json_are_output_too(ended, arguments, flags, state):
  status, _, errors = ended([*arguments('describe'), *flags], stdout=state)
  assert status == 1
  assert errors.count('\n') == 1 and errors.endswith(f'{SENTENCES[state]}\n')


@pytest.mark.parametrize('state', ['closed', 'full', 'left'])
def test_a_flag_that_is_wrong_has_its_status_where_nobody_hears_it(ended, state):
  assert ended(['train', '--stepps=3'], stderr=state) == (2, '', '')


@pytest.mark.parametrize('state', ['closed', 'full'])  # that is, open for writing alone
def test_input_that_cannot_be_read_is_told_in_a_sentence(ended, bundle, state):
  status, output, errors = ended(['decode', f'--bundle={bundle}', '-'], stdin=state)
  assert (status, output) == (2, '')
  assert errors == 'terraformer decode: standard input is closed; pipe a text into it, or use --input\n'


def test_no_message_goes_to_a_file_that_is_written(ended, text_bindings, finished_run, tmp_path):
  closed = dict.fromkeys(CLOSED, 'closed')
  assert ended(['vocab', *text_bindings, f'--output={tmp_path / "v.model"}'], **closed)[0] == 1
  assert Tokenizer.open(tmp_path / 'v.model', 0).size > 300
  assert ended(['export', f'--workdir={finished_run}', f'--output={tmp_path / "out"}'], **closed)[0] == 1
  open_bundle(tmp_path / 'out', verify=True)
