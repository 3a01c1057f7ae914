"""Checkpoints that trax 1.4.1 wrote: imported, they have its logits and its tokens."""

import json
from pathlib import Path

import pytest

from terraformer.importing import import_bundle
from tests.reference.check_trax import check, main

FOLDER = Path(__file__).parent / 'checkpoints'
NAMES = sorted(path.parent.name for path in FOLDER.glob('*/expected.npz'))
OLD = sorted((FOLDER / 'c4_medium_old').glob('*.pkl.gz'))


@pytest.mark.parametrize('name', NAMES)
def test_logits_and_greedy_tokens_are_those_of_trax(name):
  compared = list(check(FOLDER / name))
  failed = [f'{one.quantity}: {one.error:.2e} of {one.tolerance:.0e} {one.note}' for one in compared if not one.ok]
  assert len(compared) == 5 and not failed, '\n'.join(failed)


@pytest.fixture(scope='module')
def checksums(tmp_path_factory):
  import_bundle(FOLDER / 'c4_medium', tmp_path_factory.mktemp('bundles') / 'now')
  return _checksums(tmp_path_factory.getbasetemp() / 'bundles0' / 'now')


def _checksums(bundle):
  return json.loads((bundle / 'config.json').read_text())['checksums']


@pytest.mark.parametrize('path', OLD, ids=lambda path: path.name)
def test_older_formats_have_the_same_weights(path, tmp_path, checksums):
  import_bundle(path, tmp_path / 'old', config=FOLDER / 'c4_medium' / 'config.gin')
  assert _checksums(tmp_path / 'old') == checksums


def test_the_check_says_what_fails_of_which_format(capsys, tmp_path):
  folder, old = tmp_path / 'c4_medium', tmp_path / 'c4_medium_old'
  folder.mkdir(), old.mkdir()
  (old / OLD[0].name).symlink_to(OLD[0])
  (folder / 'config.gin').symlink_to(FOLDER / 'c4_medium' / 'config.gin')
  (folder / 'expected.npz').symlink_to(FOLDER / 'arxiv_dense' / 'expected.npz')
  assert main([str(tmp_path)]) == 1
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 5 and all(line.startswith('c4_medium_old        layer_save_to_file: ') for line in lines[:-1])
  assert all('FAIL' in line for line in lines[:-1]) and lines[-1] == '2 folders, 4 quantities, 4 failed'


@pytest.mark.parametrize('arguments', [[], ['nowhere'], ['one', 'two']])
def test_without_folders_the_check_is_status_2(arguments, capsys):
  assert main(arguments) == 2
  assert capsys.readouterr().err.startswith('check_trax: give one folder')
