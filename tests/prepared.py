"""Small prepared data, a small run on them, and real processes: fixtures for every folder of tests."""

import fcntl
import io
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from terraformer.config import (
  BlockConfig,
  DataConfig,
  DenseFFConfig,
  DenseProjectionConfig,
  PlainResidualConfig,
  SeqioTaskConfig,
)
from terraformer.data import job, parts, store
from terraformer.data.scoring import Scoring
from terraformer.data.tokenizer import train_vocabulary

ROOT = Path(__file__).parents[1]
_WORDS = 'red green blue tall small quick slow old bright tree river stone house bird road cloud hill door fire'
WORDS = _WORDS.split()
USUAL = Scoring()
# For runs that are not about the model: it compiles in a second.
DENSE_BLOCK, PLAIN = BlockConfig(16, 2, DenseProjectionConfig(), DenseFFConfig(32), None), PlainResidualConfig()


def sentences(count, seed=0, words=12):
  rng = np.random.default_rng(seed)
  return [' '.join(rng.choice(WORDS, words)).capitalize() + f' {i}.' for i in range(count)]


@pytest.fixture(scope='session')
def made_once(tmp_path_factory):
  """Returns folder(name, make): what make(path) wrote for the first of the test processes that asked, for all."""
  own = tmp_path_factory.getbasetemp()
  common = own.parent if 'PYTEST_XDIST_WORKER' in os.environ else own

  def folder(name, make):
    path, done = common / name, common / f'{name}.done'
    with (common / f'{name}.lock').open('w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not done.exists():
        shutil.rmtree(path, ignore_errors=True)  # of one that failed half-way
        path.mkdir()
        make(path)
        done.touch()
    return path

  return folder


@pytest.fixture(scope='session')
def tokenizer():
  return train_vocabulary(sentences(300) + ['one\n\n  two'], size=450, sentinels=20)


def with_own_sentinels(names, **options):
  """The bytes of a small sentencepiece model with pieces of these names, in this order, before those that it learns."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    **{
      'sentence_iterator': iter(sentences(300)),
      'model_writer': model,
      'vocab_size': 420,
      'hard_vocab_limit': False,
      'byte_fallback': True,
      'pad_id': 0,
      'eos_id': 1,
      'unk_id': 2,
      'bos_id': -1,
      'user_defined_symbols': list(names),
      'minloglevel': 2,
    }
    | options
  )
  return model.getvalue()


@pytest.fixture(scope='session')
def fake_prepared(tokenizer, tmp_path_factory):
  """Returns write(task, has_inputs, ...) -> DataConfig: prepares a folder with a stand-in for seqio."""

  def write(
    task='pairs',
    has_inputs=True,
    counts=(40, 11, 7),
    directory=None,
    held_out=frozenset(),
    words=tokenizer,
    scoring=USUAL,
    **fields,
  ):
    directory = directory or str(tmp_path_factory.mktemp('prepared'))
    config = DataConfig(SeqioTaskConfig(task), directory, **fields)
    features = ('inputs', 'targets') if has_inputs else ('targets',)
    split_sizes = dict(zip(store.SPLITS, counts, strict=True))

    def run(_, split, *part):
      for i, text in enumerate(sentences(split_sizes[split], seed=len(split))):
        texts = (
          dict(zip(('targets', 'inputs'), (f'Summary {i}', text), strict=True)) if has_inputs else {'targets': text}
        )
        tokens = {name: np.array(words.encode(value), np.int32) for name, value in texts.items()}
        yield types.SimpleNamespace(tokens=tokens, texts=texts, record='')

    fake = types.SimpleNamespace(
      name=task, output_features=features, splits=store.SPLITS, num_input_examples=split_sizes.get
    )
    work = store.folder_of(config).with_name(f'.{task}')
    work.mkdir(parents=True)
    components = [job.Component(fake, scoring=scoring)]
    whole = job.Job(work, config, components, features, run, words, store.Origin('c'), held_out)
    parts.write_part(whole, 0, show_progress=False)
    parts.assemble(whole, store.folder_of(config))
    return config

  return write


@pytest.fixture(scope='session')
def python():
  """Returns run(code) -> CompletedProcess of a fresh interpreter that can import the package."""

  def run(code, *arguments, check=True):
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'TF_CPP_MIN_LOG_LEVEL': '3'}
    command = [sys.executable, '-c', code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done

  return run


TINY_GIN = """
from __gin__ import dynamic_registration
from terraformer import config

config.TerraformerConfig.vocab_size = 452
config.TerraformerConfig.max_length = 16
config.TerraformerConfig.n_encoder_layers = 2
config.TerraformerConfig.n_decoder_layers = 2
config.TerraformerConfig.n_decoder_attentions = 1
config.BlockConfig.d_model = 16
config.BlockConfig.n_heads = 2
config.SparseProjectionConfig.n_modules = 4
config.SparseFFConfig.d_ff = 32
config.SparseFFConfig.block_size = 4
config.SparseFFConfig.rank = 4
config.SRUConfig.width = 4

config.DataConfig.source = @config.SeqioTaskConfig()
config.SeqioTaskConfig.name = 'pairs'
config.DataConfig.inputs_length = 12
config.DataConfig.targets_length = 6

config.TrainConfig.steps = 24
config.TrainConfig.batch_size = 8
config.TrainConfig.log_every = 2
config.TrainConfig.eval_every = 12
config.TrainConfig.eval_batches = 2
config.TrainConfig.sample_every = 24
config.CheckpointConfig.every = 4
config.TrainConfig.optimizer = @config.AdamWConfig()
config.AdamWConfig.schedule = @config.CosineScheduleConfig()
config.CosineScheduleConfig.warmup_steps = 5
config.CosineScheduleConfig.decay_steps = 24
"""


@pytest.fixture(scope='session')
def gin_file(fake_prepared, made_once):
  """A gin file of a tiny run, its data prepared."""

  def make(path):
    fake_prepared('pairs', directory=str(path / 'data'), inputs_length=12, targets_length=6)
    (path / 'tiny.gin').write_text(f"{TINY_GIN}\nconfig.DataConfig.directory = '{path / 'data'}'\n")

  return made_once('gin', make) / 'tiny.gin'


@pytest.fixture(scope='session')
def terraformer():
  """Returns start(*arguments) -> Popen of the command line in a process of its own; `xla_flags` are added.

  `shell` is what a shell does in its place: `ulimit -f 8; exec "$@" 2>&-`, say.
  """

  def start(*arguments, xla_flags='', shell=None, **options):
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    environment['XLA_FLAGS'] = f'{environment.get("XLA_FLAGS", "")} {xla_flags}'
    command = [sys.executable, '-m', 'terraformer', *map(str, arguments)]
    if shell is not None:
      command = ['sh', '-c', shell, 'sh', *command]
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **(pipes | options))

  return start


@pytest.fixture(scope='session')
def finished_run(gin_file, terraformer, made_once, tmp_path_factory):
  """The folder of a tiny run that was never stopped, with a profile of some steps."""

  def make(path):
    best = '--gin_bindings=config.CheckpointConfig.best = True'
    process = terraformer('train', f'--workdir={path}', f'--gin_file={gin_file}', '--profile=3:4', best)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]

  # A copy: tests write evaluations into it.
  return shutil.copytree(made_once('undisturbed', make), tmp_path_factory.mktemp('runs') / 'undisturbed')


@pytest.fixture(scope='session')
def bundle(finished_run, made_once):
  """The bundle of that run."""
  from terraformer.exporting import export

  return made_once('bundles', lambda path: export(finished_run, path / 'tiny')) / 'tiny'
