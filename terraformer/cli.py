"""The command line: flags and gin make one config, a command makes one call."""

import argparse
import dataclasses
import importlib.util  # noqa: F401 (gin 0.5 uses it without importing it)
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gin

from terraformer import config as config_lib
from terraformer import gin_files, interrupts, libraries, paths, streams
from terraformer.config import DecodeConfig, RunConfig, UserError, first_line
from terraformer.files import UnwritableError, writing
from terraformer.flags import DECODE_FLAGS, PATH_FLAGS, make_parser
from terraformer.modules import import_modules
from terraformer.train import status as status_lib

_HEADER = 'from __gin__ import dynamic_registration\nfrom terraformer import config\n'

_NO_MEMORY = (
  'expected sizes that fit into the memory of this machine, found too large ones; a smaller batch helps first'
)


def main(arguments: list[str] | None = None) -> int:
  """Runs one command and returns its exit status."""
  name = 'terraformer'
  try:
    try:
      flags = make_parser(_COMMANDS).parse_args(arguments)
      name = f'{name} {flags.command}'
      return _run(flags)
    finally:
      sys.stdout.flush()  # else Python would, too late to say anything about it
  except streams.OutputError as error:
    return _fail_output(name, error)


def _run(flags: argparse.Namespace) -> int:
  libraries.quiet()
  try:
    with interrupts.heard(), writing('a temporary file'):
      paths.require_given({name: getattr(flags, name, None) for name in PATH_FLAGS})
      if flags.command != 'prepare':
        import_modules(getattr(flags, 'module', []))
      return flags.run(flags) or 0
  except UserError as error:
    return _fail(flags, error, status_lib.BAD_INPUT)
  except UnwritableError as error:
    return _fail(flags, error, status_lib.FAILED)
  except MemoryError:
    return _fail(flags, _NO_MEMORY, status_lib.BAD_INPUT)
  except RuntimeError as error:  # of which XLA's is one; jax may not be imported yet
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return _fail(flags, _NO_MEMORY, status_lib.BAD_INPUT)
  except interrupts.Terminated:
    return _fail(flags, 'interrupted', status_lib.RESTART)
  except KeyboardInterrupt:
    return _fail(flags, 'interrupted', status_lib.INTERRUPTED)


def _fail(flags: argparse.Namespace, what: object, status: int) -> int:
  print(f'terraformer {flags.command}: {first_line(what)}', file=sys.stderr)
  return status


def _fail_output(name: str, error: streams.OutputError) -> int:
  """Whoever stopped reading knows that, and gets the status of a process that ends by SIGPIPE."""
  if error.reader_left:
    return 128 + signal.SIGPIPE
  print(f'{name}: {error}', file=sys.stderr)
  return status_lib.FAILED


# --- Commands --------------------------------------------------------------------------------------------------------


def _prepare(flags: argparse.Namespace) -> None:
  from terraformer.data import report
  from terraformer.data.child import ensure_prepared
  from terraformer.data.prepare import Share, is_prepared

  run, _, _ = load_configs(flags.gin_file, flags.gin_bindings)
  folder = paths.printable(f'{run.data.directory.rstrip("/")}/{run.data.task}')
  reused = is_prepared(run.data)
  share = Share(*flags.shard)
  manifest = ensure_prepared(run.data, share=share, modules=flags.module)
  if manifest is None:
    print(f'{folder}: share {share.index} of {share.count} is done, others are not yet')
    return
  counts = manifest.examples | ({'train': manifest.packed['examples']} if manifest.packed else {})
  examples = ', '.join(f'{count:,} {split}' for split, count in counts.items())
  print(
    f'{folder}: {"already prepared" if reused else "prepared"}, {examples} examples, '
    f'{manifest.vocabulary_size:,} tokens in the vocabulary, fingerprint {manifest.fingerprint[:12]}'
  )
  for line in (*report.shares(manifest), *report.skipped(manifest), *report.packs(manifest)):
    print(line)


def _vocab(flags: argparse.Namespace) -> None:
  from terraformer.data.child import write_vocabulary

  run, _, _ = load_configs(flags.gin_file, flags.gin_bindings)
  vocabulary = write_vocabulary(run.data, Path(flags.output))
  output = paths.printable(flags.output)
  print(f'{output}: {vocabulary.size:,} ids, {vocabulary.sentinels} of them sentinels that the file leaves out')


def _train(flags: argparse.Namespace) -> int:
  from terraformer.train import hosts

  try:
    hosts.connect(flags.coordinator_address, flags.num_processes, flags.process_id, silence=flags.heartbeat_timeout)
  except hosts.LostError as error:
    return _fail(flags, error, status_lib.RESTART)
  libraries.cache_compilations()
  if not hosts.are_several():
    return _train_here(flags)
  status = status_lib.FAILED
  try:
    status = _train_here(flags)
    hosts.part()
    sys.stdout.flush()
  except UserError as error:
    status = _fail(flags, error, status_lib.BAD_INPUT)
  except streams.OutputError as error:
    status = _fail_output(f'terraformer {flags.command}', error)
  except KeyboardInterrupt:
    status = _fail(flags, 'interrupted', status_lib.INTERRUPTED)
  except Exception as error:
    # The end of another process shows itself in many ways: in a collective, at a barrier, in a save that waits for it.
    if hosts.is_loss(error):
      status = _fail(flags, f'expected all processes to go on, lost one: {error}', status_lib.RESTART)
    elif isinstance(error, UnwritableError):
      status = _fail(flags, error, status_lib.FAILED)
    else:
      traceback.print_exc()
  return hosts.leave(status)


def _train_here(flags: argparse.Namespace) -> int:
  from terraformer.train import checkpoint
  from terraformer.train.divergence import DivergedError
  from terraformer.train.loop import train
  from terraformer.train.report import time_table

  workdir = Path(flags.workdir)
  stored = '' if flags.gin_file else checkpoint.stored_gin(workdir) or ''
  run, _, gin_text = load_configs(flags.gin_file, flags.gin_bindings, stored)
  paths.require_folder(workdir)
  try:
    result = train(run, workdir, gin_text=gin_text, progress=not flags.quiet, profile=flags.profile)
  except DivergedError as error:
    return _fail(flags, error, status_lib.DIVERGED)
  name = paths.printable(workdir)
  if result.interrupted:
    print(f'{name}: {result.interrupted} at step {result.step}; saved, the same command goes on', file=sys.stderr)
    return status_lib.INTERRUPTED if result.interrupted == 'SIGINT' else status_lib.RESTART
  figures = ''.join(f', {name} {value:.4g}' for name, value in result.metrics.items())
  print(f'{name}: {result.step:,} steps done{figures}; see {name}/summary.md')
  print(time_table(result.seconds))
  return 0


def _evaluate(flags: argparse.Namespace) -> None:
  from terraformer.eval.evaluate import evaluate
  from terraformer.eval.page import write_page
  from terraformer.eval.report import as_text

  run, decode = None, DecodeConfig()
  if flags.gin_file or flags.gin_bindings:
    run, decode, _ = load_configs(flags.gin_file, flags.gin_bindings, _stored_gin(flags))
  decode = None if flags.perplexity else _decode_config(decode, flags)
  libraries.cache_compilations()
  chosen = {'decode': decode, 'batch_size': flags.batch_size, 'best': flags.best}
  result = evaluate(Path(flags.workdir), flags.split, flags.limit, run, progress=not flags.json, **chosen)
  try:
    print(_as_json(dataclasses.asdict(result)) if flags.json else as_text(result, flags.examples))
  finally:  # what took long is not lost because nobody takes its figures
    if result.texts:
      write_page(result, Path(flags.workdir))


def _as_json(values: dict[str, Any]) -> str:
  """JSON whose text is text, but for the names of files that are not UTF-8, of which the bytes are escaped."""
  return json.dumps(values, ensure_ascii=False).encode(errors='backslashreplace').decode()


def _export(flags: argparse.Namespace) -> None:
  from terraformer.export import export
  from terraformer.train import same_run

  stored = _stored_gin(flags)
  if flags.gin_file or flags.gin_bindings:
    given, kept = load_configs(flags.gin_file, flags.gin_bindings, stored)[0], load_configs([], [], stored)[0]
    same_run.require_to_export(flags.workdir, kept, given)
  step = export(Path(flags.workdir), Path(flags.output), flags.dtype == 'bfloat16', sys.stderr.isatty(), flags.best)
  size = sum(path.stat().st_size for path in Path(flags.output).iterdir())
  output, workdir = paths.printable(flags.output), paths.printable(flags.workdir)
  print(f'{output}: step {step:,} of {workdir}, {size / 1e6:.1f} MB')


def _decode_config(decode: DecodeConfig, flags: argparse.Namespace) -> DecodeConfig:
  """The config with the flags that were given in the place of its fields."""
  given = {name: getattr(flags, name) for name in DECODE_FLAGS if getattr(flags, name) is not None}
  return dataclasses.replace(decode, **given | ({'stop': tuple(flags.stop)} if flags.stop else {}))


def _decode(flags: argparse.Namespace) -> None:
  with interrupts.by_signal():
    from terraformer.decode.decoder import Decoder
    from terraformer.decode.source import read_prompts
    from terraformer.decode.terminal import write_all

  _, decode, _ = load_configs(flags.gin_file, flags.gin_bindings)
  for binding in flags.gin_bindings:
    if 'config.DecodeConfig.' not in binding:
      raise UserError(f'--gin_bindings {binding!r}: expected a field of DecodeConfig; a bundle fixes all others')
  decode = _decode_config(decode, flags)
  libraries.cache_compilations()
  decoder = Decoder.open(flags.bundle, flags.verify or None)
  prompts = read_prompts(flags.input, flags.input_file, flags.stdin, flags.field, decoder.bundle.continues)
  write_all(decoder, prompts, decode, flags.batch_size, flags.json, flags.stats)


def _describe(flags: argparse.Namespace) -> None:
  from terraformer.describe import as_json, as_table

  run, _, _ = load_configs(flags.gin_file, flags.gin_bindings)
  print(as_json(run.model, flags.context) if flags.json else as_table(run.model, flags.context))


def _compile(flags: argparse.Namespace) -> None:
  # The TPU compiler runs without a TPU where it is told what it would find. Set before jax is imported.
  os.environ |= {'JAX_PLATFORMS': 'cpu', 'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost'}
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-16')
  from terraformer.pod.program import compile_step
  from terraformer.pod.report import as_json, as_text

  run, _, _ = load_configs(flags.gin_file, flags.gin_bindings)
  step = compile_step(run, flags.topology)
  print(as_json(step) if flags.json else as_text(step))


def _bench_attention(flags: argparse.Namespace) -> None:
  from terraformer.bench.attention import as_line, bench_attention

  sizes = ('lengths', 'd_model', 'n_heads', 'n_rounds', 'chunk_length', 'repeats', 'max_bytes')
  for result in bench_attention(**{name: getattr(flags, name) for name in sizes}):
    print(json.dumps(dataclasses.asdict(result)) if flags.json else as_line(result), flush=True)


def _bench_decode(flags: argparse.Namespace) -> None:
  from terraformer.bench.chart import draw_chart
  from terraformer.bench.decode import as_table, bench_decode

  run, _, _ = load_configs(flags.gin_file or ['gin_configs/models/terraformer_800m.gin'], flags.gin_bindings)
  libraries.cache_compilations()
  measured = bench_decode(
    run.model,
    flags.variants,
    flags.layers,
    flags.dtype == 'bfloat16',
    flags.context,
    flags.batch,
    flags.tokens,
    flags.scratch,
    say=lambda text: print(text, file=sys.stderr, flush=True),
  )
  results = []
  for result in measured:
    results.append(result)
    if flags.json:
      print(json.dumps(dataclasses.asdict(result)), flush=True)
  try:
    if not flags.json:
      print(as_table(results))
  finally:
    if flags.chart:
      draw_chart(results, Path(flags.chart))


def _bench_input(flags: argparse.Namespace) -> None:
  from terraformer.bench.input import as_line, bench_input

  result = bench_input(flags.inputs_length, flags.targets_length, flags.batch_size, flags.examples)
  print(json.dumps(dataclasses.asdict(result)) if flags.json else as_line(result))


_COMMANDS = {
  'prepare': _prepare,
  'vocab': _vocab,
  'train': _train,
  'evaluate': _evaluate,
  'export': _export,
  'decode': _decode,
  'describe': _describe,
  'compile': _compile,
  'bench attention': _bench_attention,
  'bench decode': _bench_decode,
  'bench input': _bench_input,
}


# --- Gin -------------------------------------------------------------------------------------------------------------


def load_configs(files: list[str], bindings: list[str], stored: str = '') -> tuple[RunConfig, DecodeConfig, str]:
  """The configs that gin files and bindings make, and the gin text that makes them again.

  Args:
    files: gin files; their includes are looked up beside the working folder and beside this package.
    bindings: of the command line, later than the files.
    stored: gin text of an earlier run, before both.

  Raises:
    UserError: for a file, name or value that is not valid, and for a binding that nothing uses.
  """
  gin.clear_config()
  package = Path(__file__).parent
  # The working folder, a checkout, and an installed wheel. Gin 0.5 has no public way to read files by other means than
  # its own, which take the locale's encoding and leave byte-order marks in the text.
  gin.config._LOCATION_PREFIXES[:] = ['', str(package.parent), str(package)]
  gin.config._FILE_READERS[:] = [(gin_files.Reader().opened, gin_files.is_there)]
  gin.parse_config(_HEADER + _default_references())
  if stored:
    _parse('the stored config', lambda: gin.parse_config(stored))
  for path in files:
    _parse(f'--gin_file {path}', lambda path=path: gin.parse_config_file(path))
  for binding in bindings:
    _parse(f'--gin_bindings {binding!r:.200}', lambda binding=binding: gin.parse_config(_HEADER + binding))
  try:
    text = gin.config_str()
    run, decode = gin.get_configurable(RunConfig)(), gin.get_configurable(DecodeConfig)()
    used = gin.operative_config_str().replace('\\\n', ' ')
  except UserError as error:
    raise UserError(str(error)) from error  # in a line, where gin has added its own
  except Exception as error:  # gin calls whatever the files name
    found = next(iter(str(error).splitlines()), type(error).__name__)
    raise UserError(f'gin: expected values that make a configuration, found {found}') from error
  for binding in '\n'.join(bindings).splitlines():
    name = binding.split('=')[0].strip()
    if re.fullmatch(r'[\w/]*config\.\w+\.\w+', name) and f'\n{name} =' not in used:
      raise UserError(f'--gin_bindings {binding!r:.200}: expected a field that this configuration uses, found {name}')
  return run, decode, text


def _parse(where: str, parse: Callable[[], object]) -> None:
  try:
    parse()
  except UserError as error:
    raise UserError(str(error)) from error  # in a line, where gin has added its own
  except RecursionError as error:
    raise UserError(f'{where}: expected includes and brackets a few levels deep, found far more') from error
  except OSError as error:  # of gin, where no file has the name
    _, *rest = str(error).splitlines()
    include = next((f' for {line.strip()}' for line in rest if line.strip().startswith('include')), '')
    raise UserError(f'{where}: expected a file that exists, found none{include}') from error
  except Exception as error:  # gin imports whatever the files name, and fails in many ways at what it cannot parse
    first, *rest = str(error).splitlines() or [type(error).__name__]
    line = next((line.strip() for line in rest if 'bindings string' not in line and 'line' in line), '')
    raise UserError(f'{where}: {first.rstrip(".")}{f" ({line})" if line else ""}') from error


def _default_references() -> str:
  """References to every nested config, so that a binding of its fields has an effect without more ado."""
  lines = ['DECODING = @config.DecodeConfig()']  # known to gin, though no other config refers to it
  for name in config_lib.__all__:
    kind = getattr(config_lib, name)
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
      if dataclasses.is_dataclass(field.default) and field.default == type(field.default)():
        lines.append(f'config.{name}.{field.name} = @config.{type(field.default).__name__}()')
  return '\n'.join(lines)


def _stored_gin(flags: argparse.Namespace) -> str:
  from terraformer.train import checkpoint

  stored = checkpoint.stored_gin(Path(flags.workdir))
  if stored is None:
    raise UserError(f'{flags.workdir}: expected a run with at least one checkpoint, found none')
  return stored


if __name__ == '__main__':
  sys.exit(main())
