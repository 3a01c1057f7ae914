"""The configuration that gin files and bindings make; nothing else of the package knows gin."""

import contextlib
import dataclasses
import importlib.util  # noqa: F401 (gin 0.5 uses it without importing it)
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gin.config

from terraformer import config as config_lib
from terraformer import gin_files
from terraformer.config import DecodeConfig, RunConfig, UserError, first_line, migrations

_HEADER = 'from __gin__ import dynamic_registration\nfrom terraformer import config\n'


def load_config(*gin_files: str | os.PathLike[str], bindings: str | Sequence[str] = ()) -> RunConfig:
  """The configuration of a run that gin files and bindings make.

  Args:
    gin_files: the later ones win; looked up in the working folder, then in the files that come with the package
      (`gin_configs/runs/demo.gin`).
    bindings: text of the form `config.TrainConfig.steps = 100`, which wins over the files.

  Raises:
    UserError: for a file, name or value that is not valid, and for a binding that nothing uses.
  """
  lines = [bindings] if isinstance(bindings, str) else list(bindings)
  return load_configs([os.fspath(path) for path in gin_files], lines)[0]


def load_configs(files: list[str], bindings: list[str], stored: str = '') -> tuple[RunConfig, DecodeConfig, str]:
  """The configs that gin files and bindings make, and the gin text that makes them again.

  Args:
    files: gin files; their includes are looked up beside the working folder and beside this package.
    bindings: of the command line, later than the files.
    stored: gin text of an earlier run, before both.

  Raises:
    UserError: for a file, name or value that is not valid, and for a binding that nothing uses.
  """
  with _working_folder_last():
    return _load(files, bindings, stored)


@contextlib.contextmanager
def _working_folder_last() -> Iterator[None]:
  """What gin files import may lie in the working folder, whose files may have the names of libraries."""
  here = os.path.abspath('')  # noqa: PTH100
  sys.path.append(here)
  try:
    yield
  finally:
    sys.path.reverse()
    sys.path.remove(here)  # the last one
    sys.path.reverse()


def _load(files: list[str], bindings: list[str], stored: str) -> tuple[RunConfig, DecodeConfig, str]:
  gin.clear_config()
  package = Path(__file__).parent
  # The working folder, a checkout, and an installed wheel. Gin 0.5 has no public way to read files by other means than
  # its own, which take the locale's encoding and leave byte-order marks in the text.
  gin.config._LOCATION_PREFIXES[:] = ['', str(package.parent), str(package)]
  readers: Any = [(gin_files.Reader().opened, gin_files.is_there)]  # gin takes `open` for the type of the first
  gin.config._FILE_READERS[:] = readers
  gin.parse_config(_HEADER + _default_references())
  if stored:
    _parse('the stored config', lambda: gin.parse_config(stored))
  for path in files:
    _parse(f'--gin_file {path}', lambda path=path: gin.parse_config_file(path))
  bindings = [gin_files.with_present_names(each, f'--gin_bindings {each!r:.200}') for each in bindings]
  for binding in bindings:
    _parse(f'--gin_bindings {binding!r:.200}', lambda binding=binding: gin.parse_config(_HEADER + binding))
  try:
    text = gin.config_str()
    run, decode = gin.get_configurable(RunConfig)(), gin.get_configurable(DecodeConfig)()
    used = gin.operative_config_str().replace('\\\n', ' ')
  except UserError as error:
    raise UserError(str(error)) from error  # in a line, where gin has added its own
  except Exception as error:  # gin calls whatever the files name
    raise UserError(f'gin: expected values that make a configuration, found {first_line(error)}') from error
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
    what = migrations.of_binding(f'{first.rstrip(".")}{f" ({line})" if line else ""}')
    raise UserError(f'{where}: {what}') from error


def _default_references() -> str:
  """References to every nested config, so that a binding of its fields has an effect without more ado."""
  lines = ['DECODING = @config.DecodeConfig()']  # known to gin, though no other config refers to it
  for name in config_lib.__all__:
    kind = getattr(config_lib, name)
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
      if dataclasses.is_dataclass(field.default) and field.default == type(field.default)():
        lines.append(f'config.{name}.{field.name} = @config.{type(field.default).__name__}()')
  return '\n'.join(lines)
