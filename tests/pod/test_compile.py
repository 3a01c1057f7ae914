"""The real TPU compiler on a small configuration, in a process of its own; it needs libtpu, but no TPU."""

import importlib.util
import json

import pytest

from terraformer.cli import main
from terraformer.config import UserError
from terraformer.pod import program

SMALL = {
  'TerraformerConfig.vocab_size': 512,
  'TerraformerConfig.n_encoder_layers': 2,
  'TerraformerConfig.n_decoder_layers': 2,
  'TerraformerConfig.bfloat16': True,
  'TerraformerConfig.loss_chunk': 16,
  'BlockConfig.d_model': 128,
  'SparseFFConfig.d_ff': 512,
  'DataConfig.inputs_length': 32,
  'DataConfig.targets_length': 16,
  'TrainConfig.batch_size': 8,
  'MeshConfig.fsdp': 2,
}
BINDINGS = [f'--gin_bindings=config.{name} = {value}' for name, value in SMALL.items()]
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')


@needs_libtpu
def test_a_small_step_compiles_for_four_chips(terraformer):
  output, errors = terraformer('compile', '--topology=v5e:2x2', '--json', *BINDINGS).communicate(timeout=600)
  assert output, errors
  result = json.loads(output.splitlines()[-1])
  assert result['fits']
  assert 0 < result['peak_bytes'] < result['hbm_bytes']
  assert result['mesh'] == {'data': 2, 'fsdp': 2, 'model': 1}
  # Each token passes each parameter at least once forwards and twice backwards, but those of the embedding.
  assert result['flops'] > 0.5 * result['dense_flops']
  assert set(result['collective_bytes']) & {'all-gather', 'reduce-scatter', 'all-reduce'}
  assert result['roofline_step_s'] == max(result['seconds'].values())


@pytest.mark.parametrize(
  ('libtpu_says', 'sentence'),
  [
    (None, "`compile` needs libtpu, which is not installed; pip install '.[tpu]'"),
    (
      'ABORTED: Internal error when accessing libtpu multi-process lockfile.',
      'another process uses libtpu; wait for it',
    ),
    ('INVALID_ARGUMENT: not divisible', '--topology v5e:3x5: libtpu knows no slice 3x5 of v5e (INVALID_ARGUMENT: not'),
  ],
)
def test_why_there_is_no_such_slice_is_told_apart(monkeypatch, libtpu_says, sentence):
  def refuse(**_):
    raise RuntimeError(libtpu_says)

  monkeypatch.setattr(program.importlib.util, 'find_spec', lambda name: libtpu_says and name)
  monkeypatch.setattr(program.topologies, 'get_topology_desc', refuse)
  with pytest.raises(UserError) as told:
    program.find_slice('v5e:3x5')
  assert str(told.value).startswith(sentence)


def test_a_chip_that_does_not_exist_is_refused(capsys):
  assert main(['compile', '--topology=v9:2x2']) == 2
  assert 'unknown chip; use one of v4, v5e, v5p, v6e' in capsys.readouterr().err
