"""`terraformer train`."""

import argparse
import sys
import traceback
from pathlib import Path

from terraformer import libraries, paths, values
from terraformer.commands.failures import fail, fail_output
from terraformer.config import UserError
from terraformer.configure import load_configs
from terraformer.files import UnwritableError
from terraformer.flags import Command, add_configuration
from terraformer.streams import OutputError
from terraformer.training import status as status_lib


def _flags(parser: argparse.ArgumentParser) -> None:
  add_configuration(parser)
  parser.add_argument('--workdir', required=True, metavar='DIR', help='folder of the run')
  parser.add_argument('--quiet', action='store_true', help='no progress bar and no samples on the terminal')
  parser.add_argument(
    '--profile', type=_span, metavar='FIRST:LAST', help='profile these steps for TensorBoard (at most a few dozen)'
  )
  group = parser.add_argument_group(
    'multiple hosts', 'On a Cloud TPU slice, hosts find each other and need none of these.'
  )
  group.add_argument('--coordinator_address', metavar='HOST:PORT', help='address where process 0 listens')
  group.add_argument('--num_processes', type=values.positive, metavar='N', help='total number of processes')
  group.add_argument('--process_id', type=values.index, metavar='I', help='number of this process, from 0')
  group.add_argument(
    '--heartbeat_timeout',
    type=values.positive,
    default=100,
    metavar='SECONDS',
    help='a process without a heartbeat for this long counts as lost, and the others exit (default: %(default)s)',
  )


def _span(text: str) -> tuple[int, int]:
  first, last = values.several(text, ':', 'FIRST:LAST')
  if not 1 <= first <= last:
    raise values.refused('FIRST:LAST from 1', text)
  return first, last


def _train(flags: argparse.Namespace) -> int:
  from terraformer.training import hosts

  try:
    hosts.connect(flags.coordinator_address, flags.num_processes, flags.process_id, silence=flags.heartbeat_timeout)
  except hosts.LostError as error:
    return fail(flags.command, error, status_lib.RESTART)
  libraries.cache_compilations()
  if not hosts.are_several():
    return _train_here(flags)
  status = status_lib.FAILED
  try:
    status = _train_here(flags)
    hosts.shutdown()
    sys.stdout.flush()
  except UserError as error:
    status = fail(flags.command, error, status_lib.BAD_INPUT)
  except OutputError as error:
    status = fail_output(f'terraformer {flags.command}', error)
  except KeyboardInterrupt:
    status = fail(flags.command, 'interrupted', status_lib.INTERRUPTED)
  except Exception as error:
    # The end of another process can appear in a collective, at a barrier, or in a save that waits for that process.
    if hosts.is_loss(error):
      status = fail(flags.command, f'another process was lost; start all of them again: {error}', status_lib.RESTART)
    elif isinstance(error, UnwritableError):
      status = fail(flags.command, error, status_lib.FAILED)
    else:
      traceback.print_exc()
  return hosts.exit_now(status)


def _train_here(flags: argparse.Namespace) -> int:
  from terraformer.training import checkpoint
  from terraformer.training.divergence import DivergedError
  from terraformer.training.loop import train
  from terraformer.training.report import time_table

  workdir = Path(flags.workdir)
  stored = '' if flags.gin_file else checkpoint.stored_gin(workdir) or ''
  run, _, gin_text = load_configs(flags.gin_file, flags.gin_bindings, stored, flags.module)
  paths.require_folder(workdir)
  try:
    result = train(run, workdir, gin_text=gin_text, show_progress=not flags.quiet, profile=flags.profile)
  except DivergedError as error:
    return fail(flags.command, error, status_lib.DIVERGED)
  name = paths.printable(workdir)
  if result.interrupted:
    print(f'{name}: {result.interrupted} at step {result.step}; saved, the same command resumes', file=sys.stderr)
    return status_lib.INTERRUPTED if result.interrupted == 'SIGINT' else status_lib.RESTART
  figures = ''.join(f', {name} {value:.4g}' for name, value in result.metrics.items())
  print(f'{name}: {result.step:,} steps done{figures}; see {name}/summary.md')
  print(time_table(result.seconds))
  return 0


TRAIN = Command(
  'train',
  'Train a model, or resume a run.',
  'A folder that holds a run is resumed from its newest checkpoint, as if it had never stopped.\n'
  'Missing data are prepared first. Ctrl-C or SIGTERM saves a checkpoint and stops; the same command resumes.\n'
  'Writes checkpoints/, tensorboard/, metrics.jsonl and summary.md with plots.\n\n'
  'Exit status: 0 done, 2 bad input, 3 diverged, 75 retry (SIGTERM, a lost host, a hung step), 130 Ctrl-C.',
  _flags,
  _train,
)
