"""`terraformer prepare` and `terraformer vocab`."""

import argparse
from pathlib import Path

from terraformer import paths, values
from terraformer.configure import load_configs
from terraformer.flags import Command, add_configuration


def _prepare_flags(parser: argparse.ArgumentParser) -> None:
  add_configuration(
    parser, modules='Python module that registers your own seqio tasks, or defines your own configs; repeatable'
  )
  parser.add_argument(
    '--shard',
    type=_shard,
    default=(0, 1),
    metavar='K/N',
    help='prepare share K, from 0, of N shares of config.DataConfig.parts; other processes prepare the others',
  )


def _shard(text: str) -> tuple[int, int]:
  index, count = values.several(text, '/', 'K/N')
  if not 0 <= index < count:
    raise values.refused('K/N with K from 0 to N - 1', text)
  return index, count


def _prepare(flags: argparse.Namespace) -> None:
  from terraformer.data import report
  from terraformer.data.child import ensure_prepared
  from terraformer.data.prepare import Share, is_prepared

  run, _, _ = load_configs(flags.gin_file, flags.gin_bindings, modules=flags.module)
  folder = paths.printable(f'{run.data.directory.rstrip("/")}/{run.data.task}')
  reused = is_prepared(run.data)
  share = Share(*flags.shard)
  manifest = ensure_prepared(run.data, share=share, modules=flags.module)
  if manifest is None:
    print(f'{folder}: share {share.index} of {share.count} is done; other shares are not done yet')
    return
  counts = manifest.examples | ({'train': manifest.packed['examples']} if manifest.packed else {})
  examples = ', '.join(f'{count:,} {split}' for split, count in counts.items())
  print(
    f'{folder}: {"already prepared" if reused else "prepared"}, {examples} examples, '
    f'{manifest.vocabulary_size:,} tokens in the vocabulary, fingerprint {manifest.fingerprint[:12]}'
  )
  for line in report.lines(manifest):
    print(line)


PREPARE = Command(
  'prepare',
  'Prepare the data of a task for training: shards of tokens.',
  'Reads the texts, trains the vocabulary if none is given, and writes ArrayRecord shards to\n'
  'config.DataConfig.directory/TASK. Reuses data that are already prepared. Needs the extra `data`.\n'
  'If it stops for any reason, finished parts are kept, and the same command resumes.\n\n'
  'Exit status: 0 done, 2 bad input, 75 retry (SIGTERM, SIGHUP), 130 Ctrl-C.',
  _prepare_flags,
  _prepare,
)


def _vocab_flags(parser: argparse.ArgumentParser) -> None:
  add_configuration(parser)
  parser.add_argument('--output', required=True, metavar='FILE', help='sentencepiece model to write')


def _vocab(flags: argparse.Namespace) -> None:
  from terraformer.data.child import write_vocabulary

  run, _, _ = load_configs(flags.gin_file, flags.gin_bindings, modules=flags.module)
  tokenizer = write_vocabulary(run.data, Path(flags.output))
  output = paths.printable(flags.output)
  print(f'{output}: {tokenizer.size:,} ids, {tokenizer.sentinels} of them sentinels, which are not in the file')


VOCAB = Command(
  'vocab',
  "Train a sentencepiece vocabulary on a task's training text.",
  'config.TokenizerConfig.size is the maximum number of ids, including config.TokenizerConfig.sentinels, which are\n'
  'added when the file is read. To prepare several tasks with the file, give it to each:\n'
  '--gin_bindings="config.TokenizerConfig.path = \'FILE\'". Needs the extra `data`.',
  _vocab_flags,
  _vocab,
)
