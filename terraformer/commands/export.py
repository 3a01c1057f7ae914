"""`terraformer export`."""

import argparse
import sys
from pathlib import Path

from terraformer import paths
from terraformer.commands.stored import stored_gin
from terraformer.configure import load_configs
from terraformer.flags import Command, add_configuration


def _flags(parser: argparse.ArgumentParser) -> None:
  add_configuration(parser)
  parser.add_argument('--workdir', required=True, metavar='DIR', help='folder of the run')
  parser.add_argument('--output', required=True, metavar='BUNDLE', help='folder to write; a bundle there is replaced')
  parser.add_argument('--best', action='store_true', help='export the best checkpoint (config.CheckpointConfig.best)')
  parser.add_argument(
    '--dtype',
    default='float32',
    choices=('float32', 'bfloat16', 'int8'),
    help='type of the weights: bfloat16 takes half the space and time, int8 a quarter (default: %(default)s)',
  )


def _export(flags: argparse.Namespace) -> None:
  from terraformer.exporting import export
  from terraformer.training import same_run

  stored = stored_gin(flags.workdir)
  if flags.gin_file or flags.gin_bindings:
    given, kept = (
      load_configs(flags.gin_file, flags.gin_bindings, stored, flags.module)[0],
      load_configs([], [], stored)[0],
    )
    same_run.require_to_export(flags.workdir, kept, given)
  step = export(Path(flags.workdir), Path(flags.output), flags.dtype, sys.stderr.isatty(), flags.best)
  size = sum(path.stat().st_size for path in Path(flags.output).iterdir())
  output, workdir = paths.printable(flags.output), paths.printable(flags.workdir)
  print(f'{output}: step {step:,} of {workdir}, {size / 1e6:.1f} MB')


EXPORT = Command(
  'export',
  'Export the newest checkpoint, or the best, as a bundle for decoding.',
  'A bundle is a folder with config.json, model.safetensors and vocabulary.model; decoding needs nothing else.',
  _flags,
  _export,
)
