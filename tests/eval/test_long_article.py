"""An article of arXiv's length, 15,360 tokens, goes through the paper's fine-tuning configuration at a small width."""

import json
import os
import subprocess

import pytest

from tests.prepared import sentences

SMALL = {
  'LocalFolderConfig.inputs_field': "'article'",
  'LocalFolderConfig.targets_field': "'abstract'",
  'DataConfig.source': '@config.LocalFolderConfig()',
  'DataConfig.parts': 1,
  'TokenizerConfig.size': 500,
  'TrainConfig.init_from': None,
  'TrainConfig.steps': 1,
  'TrainConfig.batch_size': 1,
  'TrainConfig.eval_batches': 1,
  'MeshConfig.fsdp': 1,
  'MeshConfig.model': 1,
  'TerraformerConfig.vocab_size': 512,
  'TerraformerConfig.bfloat16': False,
  'TerraformerConfig.n_encoder_layers': 2,
  'TerraformerConfig.n_decoder_layers': 2,
  'BlockConfig.d_model': 128,
  'BlockConfig.n_heads': 4,
  'SparseProjectionConfig.n_modules': 8,
  'SparseFFConfig.d_ff': 512,
  'SparseFFConfig.rank': 8,
}
BYTES = 8e9
# The suite's flags save compilation; memory is to be that of a user's process.
AS_USERS = '--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true'


def write_articles(folder):
  """Three splits of articles that are longer than the model reads."""
  folder.mkdir()
  for seed, split in enumerate(('train', 'validation', 'test')):
    rows = [
      {'article': '\n'.join(sentences(1600, seed=10 * seed + i)), 'abstract': '\n'.join(sentences(8, seed=i))}
      for i in range(2)
    ]
    (folder / f'{split}.jsonl').write_text('\n'.join(map(json.dumps, rows)))


@pytest.mark.slow
def test_it_is_trained_on_evaluated_and_decoded_within_8_gb(terraformer, tmp_path):
  write_articles(tmp_path / 'articles')
  values = SMALL | {
    'LocalFolderConfig.directory': f"'{tmp_path}/articles'",
    'DataConfig.directory': f"'{tmp_path}/data'",
  }
  run = ['--gin_file=gin_configs/runs/finetune_arxiv_800m.gin']
  run += [f'--gin_bindings=config.{name} = {value}' for name, value in values.items()]
  workdir, bundle = tmp_path / 'run', tmp_path / 'bundle'
  article = json.loads((tmp_path / 'articles' / 'test.jsonl').read_text().splitlines()[0])['article']
  (tmp_path / 'article.txt').write_text(article)
  commands = {
    'prepare': ['prepare', *run],
    'train': ['train', *run, f'--workdir={workdir}', '--quiet'],
    'evaluate': ['evaluate', f'--workdir={workdir}', '--limit=1', '--json'],
    'export': ['export', f'--workdir={workdir}', f'--output={bundle}', '--best'],
    'decode': ['decode', f'--bundle={bundle}', f'--input_file={tmp_path}/article.txt', '--json'],
  }
  written = {}
  for name, command in commands.items():
    with (tmp_path / 'out').open('w+') as out, (tmp_path / 'err').open('w+') as errors:
      process = terraformer(*command, xla_flags=AS_USERS, stdout=out, stderr=errors, stdin=subprocess.DEVNULL)
      _, status, usage = os.wait4(process.pid, 0)
      assert status == 0, (tmp_path / 'err').read_text()[-3000:]
    written[name] = (tmp_path / 'out').read_text()
    print(f'{name}: {usage.ru_maxrss * 1024 / 1e9:.2f} GB, {usage.ru_utime + usage.ru_stime:.0f} s of processor time')
    assert usage.ru_maxrss * 1024 < BYTES, name
  decoded, evaluated = json.loads(written['decode']), json.loads(written['evaluate'])
  assert decoded['stats']['input_tokens'] == 15_360 and decoded['stats']['dropped_tokens'] > 0
  assert evaluated['texts'][0][0] == article and evaluated['texts'][0][2] == decoded['output']
