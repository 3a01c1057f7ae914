"""The command line of `benchmarks/paper.py`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims.experiment import Experiment
from benchmarks.claims.results import RESULTS, Results
from terraformer import libraries
from terraformer.config import UserError

_DONE, _BAD_INPUT, _STOPPED = 0, 2, 75


def main(arguments: list[str] | None = None) -> int:
  """Lists or runs experiments, or writes the page; returns the exit status: 0 done, 2 bad input, 75 time is up."""
  flags = _parser().parse_args(arguments)
  libraries.quiet()  # before jax is imported
  try:
    return _do(flags)
  except UserError as error:
    print(f'paper.py: {error}', file=sys.stderr)
    return _BAD_INPUT


def _do(flags: argparse.Namespace) -> int:
  from benchmarks.claims.experiments import chosen

  if flags.speed:
    from benchmarks.claims import speed

    speed.write_speed(chosen(flags.only or speed.MEASURED, 'cpu'), flags.results)
    return _DONE
  if flags.page:
    from benchmarks.claims.page import write_page

    write_page(Results.read(flags.results))
    return _DONE
  experiments = chosen(flags.only, flags.scale)
  if flags.list:
    _list(experiments, flags.results)
    return _DONE
  if flags.folder is None:
    raise UserError('give --folder=DIR for the training runs, outside of the repository')
  return _run(experiments, flags.folder.absolute(), flags.results, flags.hours)


def _list(experiments: Sequence[Experiment], results: Path) -> None:
  from benchmarks.claims.running import is_current, result_of

  open_hours = 0.0
  for experiment in experiments:
    result = result_of(experiment, results)
    state = 'open' if result is None else 'done' if is_current(experiment, result) else 'done, as defined before'
    open_hours += experiment.hours * (result is None)
    print(f'{experiment.name:<28} {experiment.hours:5.1f} h  {state}')
  print(f'{open_hours:.1f} hours open')


def _run(experiments: Sequence[Experiment], folder: Path, results: Path, hours: float | None) -> int:
  from benchmarks.claims import running

  libraries.cache_compilations()
  with running.limited(hours):
    try:
      for experiment in experiments:
        running.run(experiment, folder, results)
        print(f'{experiment.name}: done', flush=True)
    except (running.TimeUpError, KeyboardInterrupt) as stop:
      print(f'{stop or "stopped"}; the same command resumes', file=sys.stderr)
      return _STOPPED
  return _DONE


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser('paper.py', description="Measures the paper's claims about quality.")
  parser.add_argument('--scale', choices=('cpu', 'gpu'), default='cpu', help='machine (default: %(default)s)')
  parser.add_argument('--only', default='', metavar='NAME,...', help='names, or patterns such as copy-*')
  parser.add_argument('--folder', type=Path, metavar='DIR', help='folder for the training runs')
  parser.add_argument(
    '--results',
    type=Path,
    default=RESULTS,
    metavar='DIR',
    help='folder for the files of results (default: %(default)s)',
  )
  parser.add_argument('--hours', type=float, metavar='H', help='stop after this time')
  parser.add_argument('--list', action='store_true', help='show all experiments and what is done')
  parser.add_argument(
    '--speed', action='store_true', help='measure the times of steps and tokens; the machine must be idle'
  )
  parser.add_argument('--page', action='store_true', help='write docs/paper.md and its charts from the results')
  return parser
