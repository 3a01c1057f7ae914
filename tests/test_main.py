"""How the process of a command ends."""

import pytest

# A library whose tear-down breaks the process, a command that ends with a status, and a link that is removed.
_CODE = """
import atexit, os, sys
from pathlib import Path
atexit.register(os.abort)
from terraformer import __main__, cli, paths

def command(arguments):
  paths.plain(Path(sys.argv[1]) / 'wild*' / 'file')
  print('the text', end='')
  print('a message', end='', file=sys.stderr)
  return int(sys.argv[2])

cli.main = command
sys.exit(__main__.main([sys.argv[3]]))
"""


@pytest.mark.parametrize('status', [0, 1, 2, 130, 141])
def test_a_text_is_whole_and_the_status_its_own_whatever_libraries_do_at_the_end(python, tmp_path, monkeypatch, status):
  monkeypatch.setenv('TMPDIR', str(tmp_path))
  (tmp_path / 'wild*').mkdir()
  done = python(_CODE, tmp_path, status, 'decode', check=False)
  assert (done.returncode, done.stdout, done.stderr) == (status, 'the text', 'a message')
  assert [path.name for path in tmp_path.iterdir()] == ['wild*']


def test_other_commands_end_as_python_does(python, tmp_path):
  assert python(_CODE, tmp_path, 0, 'train', check=False).returncode < 0
