"""Checkpoints that trax 1.4.1 wrote: imported, they have its logits and its tokens."""

import json
from pathlib import Path

import pytest

from terraformer.config import UserError
from terraformer.importing import import_bundle
from tests.reference import check_trax
from tests.reference.check_trax import check, main
from tests.reference.vectors import Comparison

FOLDER = Path(__file__).parent / 'checkpoints'
NAMES = sorted(path.parent.name for path in FOLDER.glob('*/expected.npz'))
OLD = sorted((FOLDER / 'c4_medium_old').glob('*.pkl.gz'))


# Of the other runs, the parameters are compared with those of the bundle.
RUNS_THAT_DECODE = ('arxiv_mixed', 'c4_big')


@pytest.mark.parametrize('name', NAMES)
def test_logits_and_greedy_tokens_are_those_of_trax(name):
  run_decodes = name in RUNS_THAT_DECODE
  compared = list(check(FOLDER / name, run_decodes))
  failed = [f'{one.quantity}: {one.error:.2e} of {one.tolerance:.0e} {one.note}' for one in compared if not one.ok]
  assert len(compared) == 4 + 2 * run_decodes and not failed, '\n'.join(failed)


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


def test_the_check_says_what_fails_of_which_format(capsys, tmp_path, monkeypatch):
  folder, old = tmp_path / 'c4_medium', tmp_path / 'c4_medium_old'
  folder.mkdir(), old.mkdir()
  (old / OLD[0].name).symlink_to(OLD[0])
  for name in ('config.gin', 'expected.npz'):
    (folder / name).symlink_to(FOLDER / 'c4_medium' / name)

  def _run(*_):
    yield Comparison('run: logits', 3e-4, 1e-4)
    raise UserError('the rest is broken')

  monkeypatch.setattr(check_trax, '_bundle', lambda *_: iter([Comparison('bundle: logits', 1e-5, 1e-4, 'a note')]))
  monkeypatch.setattr(check_trax, '_parameters', lambda *_: iter([Comparison('run: parameters', float('nan'), 0.0)]))
  monkeypatch.setattr(check_trax, '_run', _run)
  assert main([str(tmp_path)]) == 1
  *lines, last = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
  assert [first for first, _ in lines] == ['c4_medium_old'] * 4
  assert [' '.join(rest.split()) for _, rest in lines] == [
    'layer_save_to_file: bundle: logits 1.00e-05 1.0e-04 ok (a note)',
    'layer_save_to_file: run: parameters nan 0.0e+00 FAIL',
    'layer_save_to_file: run: logits 3.00e-04 1.0e-04 FAIL',
    'layer_save_to_file: run nan 0.0e+00 FAIL (UserError: the rest is broken)',
  ]
  assert ' '.join(last) == '2 folders, 4 quantities, 3 failed'


@pytest.mark.parametrize('arguments', [[], ['nowhere'], ['one', 'two']])
def test_without_folders_the_check_is_status_2(arguments, capsys):
  assert main(arguments) == 2
  assert capsys.readouterr().err.startswith('check_trax: give one folder')
