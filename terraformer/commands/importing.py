"""`terraformer import`."""

import argparse
import sys
from pathlib import Path

from terraformer import paths
from terraformer.config import UserError
from terraformer.files import write_whole
from terraformer.flags import Command


def _flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--checkpoint',
    required=True,
    metavar='PATH',
    help='BASE.pkl.gz of trax, or a folder with one; also at gs:// or https://',
  )
  parser.add_argument('--config', metavar='FILE', help='its config.gin (default: the one beside the checkpoint)')
  parser.add_argument(
    '--vocabulary',
    metavar='FILE',
    help='sentencepiece model, or subword file of tensor2tensor; without it the model reads and writes ids',
  )
  parser.add_argument('--output', metavar='BUNDLE', help='bundle to write; a bundle there is replaced')
  parser.add_argument('--workdir', metavar='DIR', help='run to write, to be scored and fine-tuned; new or empty')
  parser.add_argument(
    '--dtype',
    choices=('float32', 'bfloat16', 'int8'),
    help='of the weights of a bundle: bfloat16 takes half the space and time, int8 a quarter (default: float32)',
  )
  parser.add_argument('--report', metavar='FILE', help='file for a list of all entries and what each became')


def _import(flags: argparse.Namespace) -> None:
  from terraformer.importing import FINE_TUNING, import_bundle, import_run

  if (flags.output is None) == (flags.workdir is None):
    raise UserError('give either --output, for a bundle, or --workdir, for a run')
  if flags.dtype and flags.workdir is not None:
    raise UserError('--dtype is for a bundle; the parameters of a run are float32')
  source, show_progress = flags.checkpoint, sys.stderr.isatty()
  given = {'config': flags.config, 'vocabulary': flags.vocabulary}
  if flags.output is not None:
    dtype = flags.dtype or 'float32'
    done = import_bundle(source, Path(flags.output), **given, dtype=dtype, show_progress=show_progress)
  else:
    done = import_run(source, Path(flags.workdir), **given, show_progress=show_progress)
  if flags.report:
    write_whole(Path(flags.report), '\n'.join([*done.entries, '']).encode())
  for line in done.skipped:
    print(f'config.gin: cannot read the line {line[:200]!r}; it was skipped', file=sys.stderr)
  pipeline, target = done.pipeline, paths.printable(flags.output or flags.workdir)
  end = 'with' if pipeline.inputs_eos else 'without'
  print(f'{target}: step {done.step:,} of {paths.printable(source)}')
  n_used = len(done.entries) - len(done.dropped)
  print(
    f'{len(done.entries):,} entries: {n_used:,} became parameters, {len(done.dropped):,} were dropped, none is left '
    'over'
  )
  for line in done.dropped:
    print(f'dropped: {line}')
  print(
    f'sources of {pipeline.inputs_length:,} tokens {end} an end of sequence, targets of {pipeline.targets_length:,}; '
    f'{done.model.vocab_size:,} ids'
  )
  if flags.workdir is not None:
    print(f'to fine-tune it: terraformer train --workdir=OTHER --gin_file={target}/{FINE_TUNING}, with your data')


IMPORT = Command(
  'import',
  "Convert a checkpoint of trax, the library of the paper's authors, into a bundle or a run.",
  'The architecture is read from config.gin. The pickle is read without running anything in it, and every entry is\n'
  'checked against the architecture. Arrays are kept on the disk beside the output, so memory does not grow with the\n'
  'model; twice the space of the output is needed there.',
  _flags,
  _import,
)
