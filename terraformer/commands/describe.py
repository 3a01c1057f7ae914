"""`terraformer describe`."""

import argparse

from terraformer import values
from terraformer.configure import load_configs
from terraformer.flags import Command, add_configuration


def _flags(parser: argparse.ArgumentParser) -> None:
  add_configuration(parser)
  parser.add_argument(
    '--context',
    type=values.positive,
    default=64,
    help='number of tokens that the decoded token sees (default: %(default)s)',
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object with `model` and `twin`')


def _describe(flags: argparse.Namespace) -> None:
  from terraformer.describe import as_json, as_table

  run, _, _ = load_configs(flags.gin_file, flags.gin_bindings, modules=flags.module)
  print(as_json(run.model, flags.context) if flags.json else as_table(run.model, flags.context))


DESCRIBE = Command(
  'describe',
  'Show the parts of a model and the cost of one decoded token.',
  'Prints parameters by part, those that a decoded token reads, bytes and operations, also for the dense twin: the\n'
  'same model with dense projections, feed-forward blocks and output, and as many parameters. Allocates nothing.',
  _flags,
  _describe,
)
