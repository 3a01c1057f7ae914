"""The command: its flags, and what it says when it cannot begin."""

import socket

import pytest

from terraformer.cli import main
from terraformer.commands.serve import SERVE
from terraformer.flags import make_parser
from terraformer.serving import server

_WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from terraformer.cli import main
sys.exit(main(['serve']))
"""


@pytest.mark.parametrize('package', ['fastapi', 'uvicorn', 'prometheus_client'])
def test_without_the_extra_a_sentence_says_what_to_install(python, package):
  done = python(_WITHOUT, package, check=False)
  assert (done.returncode, done.stdout) == (2, '')
  install = "install what it needs with: pip install 'terraformer-jax[serve]'"
  assert done.stderr == f'terraformer serve: this command needs {package}; {install}\n'


@pytest.fixture
def served(monkeypatch):
  """What the command would serve, instead of serving it."""
  found = []

  def serve(service, bound):
    found.append((service.settings, bound.getsockname()))
    bound.close()
    service.scheduler.close()

  monkeypatch.setattr(server, 'serve', serve)
  return found


def test_without_flags_the_shipped_model_is_served_to_this_machine_alone(served, monkeypatch, capsys):
  monkeypatch.setenv('TERRAFORMER_API_KEY', 'geheim')
  assert main(['serve', '--port=0']) == 0
  ((settings, (host, port)),) = served
  assert (settings.name, settings.tasks, settings.api_key) == ('technical_english', ('summarize', 'fix'), 'geheim')
  assert host == '127.0.0.1' and capsys.readouterr().out.startswith(f'technical_english is at http://{host}:{port} ')


def test_numbers_are_taken_up_to_their_limits(served, capsys):
  limits = {'max_tokens': 2**31 - 1, 'max_seconds': 86400, 'max_megabytes': 1000, 'max_queue': 0, 'max_concurrent': 1}
  flags = [f'--{name}={value}' for name, value in limits.items()]
  assert main(['serve', '--port=0', '--host=0.0.0.0', '--task=x', '--threads=4096', *flags]) == 0
  ((settings, _),) = served
  assert (settings.max_tokens, settings.seconds, settings.body_bytes) == (2**31 - 1, 86400, 10**9)
  assert settings.tasks == ('x',)
  assert 'note: whoever reaches this address can use the model' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['max_concurrent', 'max_tokens', 'max_seconds', 'max_megabytes', 'threads'])
def test_nothing_can_be_limited_to_0(capsys, name):
  with pytest.raises(SystemExit) as ended:
    make_parser([SERVE]).parse_args(['serve', f'--{name}=0'])
  assert ended.value.code == 2 and f'--{name}: expected at least 1' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--host=nowhere.invalid'], "--host: there is no address 'nowhere.invalid' on this machine"),
    (['--host=\udcff'], '--host: there is no address'),
    (['--host=192.0.2.1'], "--host: cannot listen at '192.0.2.1'"),
    (['--port=0', '--bundle=none'], 'none does not exist; give the folder of a bundle, or technical_english'),
    (['--port=0', '--log_file=/'], 'cannot write /: is a directory'),
  ],
)
def test_what_cannot_be_served_is_a_sentence(capsys, flags, words):
  assert main(['serve', *flags]) == 2
  errors = capsys.readouterr().err
  assert words in errors and errors.count('\n') == 1


def test_a_taken_port_is_a_sentence(capsys):
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    assert main(['serve', f'--port={port}']) == 2
  sentence = f'terraformer serve: port {port} of 127.0.0.1 is taken; choose another with --port, or 0 for any\n'
  assert capsys.readouterr().err == sentence
