"""Gin text of a configuration makes it again: of every gin file, and of what only Python code can nest so."""

import dataclasses

import pytest

from terraformer.config import (
  AdamWConfig,
  BlockConfig,
  CosineScheduleConfig,
  DataConfig,
  DenseFFConfig,
  DenseProjectionConfig,
  DivergenceConfig,
  FullAttentionConfig,
  InitFromConfig,
  LocalFilesConfig,
  RunConfig,
  SparseFFConfig,
  TerraformerConfig,
  TrainConfig,
)
from terraformer.configure import load_config, load_configs
from terraformer.gin_text import as_gin
from terraformer.modules import import_modules
from tests import outside
from tests.test_gin_configs import FILES

_NARROW, _WIDE = (BlockConfig(attention=FullAttentionConfig(query_chunk=chunk)) for chunk in (16, 32))
BUILT = {
  'defaults': RunConfig(),
  'stacks that differ': RunConfig(TerraformerConfig(encoder=BlockConfig(feed_forward=DenseFFConfig(8)))),
  'stacks that differ deep within': RunConfig(TerraformerConfig(encoder=_NARROW, decoder=_WIDE)),
  'one class at two depths': RunConfig(
    TerraformerConfig(
      encoder=BlockConfig(feed_forward=SparseFFConfig(256, 8, 4)),
      decoder=BlockConfig(feed_forward=SparseFFConfig(512, 16, 8), projection=DenseProjectionConfig()),
    )
  ),
  'a default behind what is not': RunConfig(TerraformerConfig(encoder=BlockConfig(256), decoder=BlockConfig())),
  'what is left out': RunConfig(TerraformerConfig(decoder=BlockConfig(recurrence=None))),
  'texts': RunConfig(data=DataConfig(LocalFilesConfig(("a 'quoted' \\ name\n.txt", 'müll.txt')))),
  'numbers': RunConfig(train=TrainConfig(optimizer=AdamWConfig(CosineScheduleConfig(peak=1e-30)))),
  'another run': RunConfig(train=TrainConfig(init_from=InitFromConfig('runs/first'))),
}


@pytest.mark.parametrize('path', FILES)
def test_the_configuration_of_a_gin_file(path):
  run = load_config(path)
  assert load_configs([], [], as_gin(run))[0] == run


@pytest.mark.parametrize('name', BUILT)
def test_a_configuration_that_python_builds(name):
  assert load_configs([], [], as_gin(BUILT[name]))[0] == BUILT[name]


def test_infinity():
  field = next(field.name for field in dataclasses.fields(DivergenceConfig) if field.type is float)
  run = RunConfig(train=TrainConfig(divergence=DivergenceConfig(**{field: float('inf')})))
  assert load_configs([], [], as_gin(run))[0] == run


def test_kinds_of_a_module_of_the_users(tmp_path, monkeypatch):
  (tmp_path / f'{outside.NAME}.py').write_text(outside.SOURCE)
  (tmp_path / 'own.gin').write_text(outside.GIN)
  monkeypatch.chdir(tmp_path)
  import_modules([outside.NAME])
  run = load_config('own.gin')
  assert load_configs([], [], as_gin(run))[0] == run


def test_a_binding_over_the_text_has_an_effect():
  run = load_configs([], ['config.TrainConfig.steps = 7'], as_gin(load_config('gin_configs/runs/demo.gin')))[0]
  assert run.train.steps == 7
