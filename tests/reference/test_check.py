"""Parity with the authors' code, quantity by quantity, and that the program that says so can fail."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.reference.check import CASES, check, main

VECTORS = Path(__file__).parent / 'vectors'
FILES = sorted(VECTORS.glob('*.npz'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_quantity_is_that_of_the_reference(path):
  failed = [f'{one.quantity}: {one.error:.2e} of {one.tolerance:.0e} {one.note}' for one in check(path) if not one.ok]
  assert not failed, '\n'.join(failed)


def test_there_is_a_file_for_every_case():
  assert {path.stem for path in FILES} == set(CASES)


def _changed(folder, name, **arrays):
  """A copy of a file with some arrays put in the place of, or beside, its own."""
  with np.load(VECTORS / f'{name}.npz') as file:
    np.savez(folder / f'{name}.npz', **(dict(file) | arrays))
  return folder / f'{name}.npz'


def _failed(path):
  return [one for one in check(path) if not one.ok]


def _off_by_a_little():
  with np.load(VECTORS / 'factored_dense.npz') as file:
    y = file['y'].copy()
  y[0, 0] += 1e-3
  return {'y': y}


UNKNOWN = {'unknown': np.zeros(3)}


def test_an_output_that_is_off_by_a_little_fails(tmp_path):
  failed = _failed(_changed(tmp_path, 'factored_dense', **_off_by_a_little()))
  assert {one.quantity for one in failed} == {'y', 'y, step by step'}
  np.testing.assert_allclose([one.error for one in failed], 1e-3, rtol=0.1)


def test_an_array_that_nobody_looks_at_fails(tmp_path):
  (one,) = _failed(_changed(tmp_path, 'factored_dense', **UNKNOWN))
  assert (one.quantity, one.note) == ('unknown', 'not covered')


def test_an_array_of_another_shape_fails(tmp_path):
  failed = _failed(_changed(tmp_path, 'factored_dense', y=np.zeros((2, 3))))
  assert failed and 'y' in failed[0].quantity and 'in the reference' in failed[0].note


def test_an_array_that_is_not_a_number_fails(tmp_path):
  with np.load(VECTORS / 'factored_dense.npz') as file:
    nothing = np.full_like(file['grad_x'], np.nan)
  assert [one.quantity for one in _failed(_changed(tmp_path, 'factored_dense', grad_x=nothing))] == ['grad_x']


def test_a_file_that_has_no_case_fails(tmp_path):
  (one,) = _failed(shutil.copy(VECTORS / 'factored_dense.npz', tmp_path / 'factored_sparse.npz'))
  assert (one.quantity, one.note) == ('the file', 'not covered: no case of this name')


def test_a_case_that_breaks_fails_and_says_how(tmp_path):
  np.savez(tmp_path / 'factored_dense.npz', x=np.zeros((2, 3, 4)))
  (one,) = _failed(tmp_path / 'factored_dense.npz')
  assert one.quantity == 'the case' and one.note.startswith("KeyError: 'w_gating'")


def test_a_good_folder_is_status_0(tmp_path, capsys):
  shutil.copy(VECTORS / 'factored_dense.npz', tmp_path)
  assert main([str(tmp_path)]) == 0
  assert capsys.readouterr().out.splitlines()[-1] == '1 files, 6 quantities, 0 failed'


@pytest.mark.parametrize(
  ('name', 'arrays'),
  [('factored_dense', _off_by_a_little()), ('factored_dense', UNKNOWN), ('factored_sparse', None)],
  ids=['off', 'not covered', 'no case'],
)
def test_anything_that_fails_is_status_1(tmp_path, capsys, name, arrays):
  if arrays is None:
    shutil.copy(VECTORS / 'factored_dense.npz', tmp_path / f'{name}.npz')
  else:
    _changed(tmp_path, name, **arrays)
  assert main([str(tmp_path)]) == 1
  assert 'FAIL' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [[], ['nowhere'], ['one', 'two']])
def test_without_files_it_is_status_2(arguments, capsys):
  assert main(arguments) == 2
  assert capsys.readouterr().err == 'check: expected one folder with .npz files, found none\n'
