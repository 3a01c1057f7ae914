"""`terraformer compile`."""

import argparse
import os

from terraformer.configure import load_configs
from terraformer.flags import Command, add_configuration


def _flags(parser: argparse.ArgumentParser) -> None:
  add_configuration(parser)
  parser.add_argument('--topology', required=True, metavar='CHIP:SLICE', help='v5e:4x4, v5p:4x4x4, v4:2x2x2, v6e:4x4')
  parser.add_argument('--json', action='store_true', help='print one JSON object')


def _compile(flags: argparse.Namespace) -> None:
  # The TPU compiler runs without a TPU if these describe the missing hardware. They must be set before jax is imported.
  os.environ |= {'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost'}
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-16')
  from terraformer.pod.program import compile_step
  from terraformer.pod.report import as_json, as_text

  run, _, _ = load_configs(flags.gin_file, flags.gin_bindings, modules=flags.module)
  step = compile_step(run, flags.topology)
  print(as_json(step) if flags.json else as_text(step))


COMPILE = Command(
  'compile',
  'Compile the training step for a slice of TPUs, without having one.',
  "Prints a device's memory, operations, moved bytes and collectives, and rooflines of step time and model FLOPs\n"
  "utilization, with the arithmetic. Needs libtpu (the extra `tpu`); takes minutes for the paper's models.",
  _flags,
  _compile,
)
