"""The command that decodes, as a process."""

import json
import signal
import time
from pathlib import Path

import pytest

CODE = """
import sys
from terraformer.cli import main
status = main(sys.argv[1:])
heavy = [name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'seqio', 'tensorflow_datasets', 'grain')]
print('MODULES', heavy, file=sys.stderr)
sys.exit(status)
"""


def test_decoding_never_imports_tensorflow_or_seqio(python, bundle):
  done = python(CODE, 'decode', f'--bundle={bundle}', '--input=Red tree river.', '--max_tokens=5', '--stats')
  assert 'MODULES []' in done.stderr
  assert 'first token after' in done.stderr


@pytest.mark.parametrize('source', ['input', 'file', 'stdin'])
def test_a_text_comes_from_a_flag_a_file_or_standard_input(terraformer, bundle, tmp_path, source):
  text = 'Red tree river.'
  (tmp_path / 'text.txt').write_text(text)
  with (tmp_path / 'text.txt').open() as stdin:
    arguments = {'input': f'--input={text}', 'file': f'--input_file={tmp_path / "text.txt"}', 'stdin': '-'}
    process = terraformer('decode', f'--bundle={bundle}', arguments[source], '--json', stdin=stdin)
    output, errors = process.communicate(timeout=100)
  assert process.returncode == 0, errors
  row = json.loads(output)
  assert row['input'] == text and row['stats']['input_tokens'] > 0 and isinstance(row['output'], str)


def test_one_object_a_line_for_every_line_of_a_file(terraformer, bundle, tmp_path):
  rows = [{'body': 'Red tree.', 'id': 1}, {'body': 'Blue hill.', 'id': 2}]
  (tmp_path / 'texts.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  arguments = (f'--input_file={tmp_path / "texts.jsonl"}', '--field=body', '--json')
  output, errors = terraformer('decode', f'--bundle={bundle}', *arguments).communicate(timeout=100)
  assert [json.loads(line)['input'] for line in output.splitlines()] == ['Red tree.', 'Blue hill.'], errors


@pytest.mark.parametrize('seconds', [0, 0.3, 0.9, 2])
def test_an_interrupted_command_says_so_at_most(terraformer, bundle, tmp_path, seconds):
  (tmp_path / 'texts.jsonl').write_text('\n'.join(json.dumps({'inputs': f'Red tree {i}.'}) for i in range(100_000)))
  process = terraformer('decode', f'--bundle={bundle}', f'--input_file={tmp_path / "texts.jsonl"}')
  while 'numpy' not in Path(f'/proc/{process.pid}/maps').read_text():  # Python itself has started
    time.sleep(0.01)
  time.sleep(seconds)
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=100)
  # The shell calls both 130: before anything has begun the signal itself ends the process.
  assert process.returncode in (130, -signal.SIGINT)
  assert errors in ('', 'terraformer decode: interrupted\n')
