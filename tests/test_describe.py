"""The table and the JSON of `terraformer describe`."""

import json

from terraformer.cli import main

SMALL = [
  '--gin_bindings=config.TerraformerConfig.vocab_size = 96',
  '--gin_bindings=config.BlockConfig.d_model = 32',
  '--gin_bindings=config.SparseFFConfig.d_ff = 64',
  '--gin_bindings=config.SparseFFConfig.block_size = 8',
]


def test_json_has_the_model_and_a_twin_of_as_many_parameters(capsys):
  assert main(['describe', '--json', *SMALL]) == 0
  costs = json.loads(capsys.readouterr().out)
  ours, twin = costs['model'], costs['twin']
  assert abs(twin['parameters'] / ours['parameters'] - 1) < 0.03
  assert ours['read'] < twin['read']
  assert ours['parameters'] == sum(part['parameters'] for part in ours['parts'].values())


def test_a_degenerate_twin_is_called_so(capsys):
  for file, is_degenerate in (('demo', True), ('terraformer_800m', False)):
    assert main(['describe', f'--gin_file=gin_configs/models/{file}.gin']) == 0
    said = capsys.readouterr().out
    assert ('This twin is degenerate' in said) == ('times more operations' in said) == is_degenerate


def test_the_table_has_a_row_for_every_part(capsys):
  main(['describe', '--json', *SMALL])
  parts = json.loads(capsys.readouterr().out)['model']['parts']
  assert main(['describe', *SMALL]) == 0
  rows = {line[:32].strip() for line in capsys.readouterr().out.splitlines()}
  assert set(parts) <= rows
