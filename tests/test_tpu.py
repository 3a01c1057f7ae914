"""libtpu is asked for TPUs where it is installed and one may be there."""

import os

import pytest

from terraformer import tpu


@pytest.fixture
def looked_for(monkeypatch):
  """Returns find(installed, attached, **environment) -> what JAX_PLATFORMS is afterwards."""

  def find(installed, attached=False, **environment):
    monkeypatch.setattr(tpu.importlib.util, 'find_spec', lambda name: name if name in installed else None)
    monkeypatch.setattr(tpu, 'is_attached', lambda: attached)
    monkeypatch.setattr(os, 'environ', environment)
    tpu.leave_out_if_absent()
    return environment.get('JAX_PLATFORMS')

  return find


def test_without_a_tpu_the_cpu_is_taken_at_once(looked_for):
  assert looked_for(['libtpu']) == looked_for(['libtpu'], JAX_PLATFORMS='') == 'cpu'


@pytest.mark.parametrize(
  ('installed', 'attached'), [(['libtpu'], True), ([], False), ([], True), (['libtpu', 'jax_plugins'], False)]
)
def test_else_jax_looks_for_itself(looked_for, installed, attached):
  assert looked_for(installed, attached) is None


@pytest.mark.parametrize('said', ['tpu', 'tpu,cpu', 'proxy', 'cuda'])
def test_what_the_user_says_counts(looked_for, said):
  assert looked_for(['libtpu'], JAX_PLATFORMS=said) == said


@pytest.mark.parametrize('name', ['JAX_FORCE_TPU_INIT', 'TPU_LIBRARY_PATH'])
def test_a_tpu_that_is_reached_otherwise_is_looked_for(looked_for, name):
  assert looked_for(['libtpu'], **{name: '1'}) is None
