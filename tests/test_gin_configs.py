"""Every gin file makes a configuration; those of the paper's sizes have its shapes. Nothing is allocated."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from terraformer.cli import load_configs
from terraformer.config import from_dict, to_dict
from terraformer.models.make import abstract_model
from terraformer.models.twin import n_parameters

ROOT = Path(__file__).parent.parent
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'gin_configs').rglob('*.gin'))
# Millions of parameters, and the twin.
SIZES = {
  'terraformer_800m': 791.974,
  'scaling_800m': 772.064,
  'terraformer_17b': 16_948.642,
  'terraformer_54b': 53_441.409,
}
by_size = pytest.mark.parametrize('name', SIZES)


def _model(name):
  return load_configs([f'gin_configs/models/{name}.gin'], [])[0].model


@pytest.mark.parametrize('path', FILES)
def test_a_gin_file_makes_a_configuration(path):
  run = load_configs([path], [])[0]
  assert from_dict(to_dict(run)) == run


def test_the_files_of_the_package_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert load_configs(['gin_configs/runs/demo.gin'], [])[0].data.task == 'docstring_summarization'


@pytest.mark.parametrize('path', FILES)
def test_a_gin_file_begins_with_its_command(path):
  assert '# command' in (ROOT / path).read_text()


@by_size
def test_a_paper_size_has_as_many_parameters(name):
  assert n_parameters(_model(name)) / 1e6 == pytest.approx(SIZES[name], abs=1e-3)


@by_size
def test_the_dense_twin_has_as_many_parameters_within_3_percent(name):
  assert n_parameters(_model(f'{name}_dense')) == pytest.approx(n_parameters(_model(name)), rel=0.03)


@by_size
@pytest.mark.parametrize('twin', ['', '_dense'])
def test_logits_of_a_paper_size_have_the_shape_of_targets_and_vocabulary(name, twin):
  model = abstract_model(_model(name + twin))
  inputs, targets = (jax.ShapeDtypeStruct((2, length), jnp.int32) for length in (512, 256))
  logits = jax.eval_shape(lambda model, *tokens: model(*tokens), model, inputs, targets)
  assert (logits.shape, logits.dtype) == ((2, 256, 32_000), jnp.float32)
