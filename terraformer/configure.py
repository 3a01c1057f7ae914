"""Loads configurations from gin files and bindings; only this module calls gin."""

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
from terraformer import gin_errors, gin_files
from terraformer.config import DecodeConfig, RunConfig, UserError, first_line

_HEADER = 'from __gin__ import dynamic_registration\nfrom terraformer import config\n'


def load_config(*gin_files: str | os.PathLike[str], bindings: str | Sequence[str] = ()) -> RunConfig:
  """Returns the configuration of a run from gin files and bindings.

  Args:
    gin_files: gin files; later ones take precedence. They are looked up in the working folder, then among the files
      that come with the package (`gin_configs/runs/demo.gin`).
    bindings: bindings such as `config.TrainConfig.steps = 100`, which take precedence over the files.

  Raises:
    UserError: if a file, name or value is invalid, or if the configuration does not use a binding.
  """
  lines = [bindings] if isinstance(bindings, str) else list(bindings)
  return load_configs([os.fspath(path) for path in gin_files], lines)[0]


def load_configs(
  files: list[str], bindings: list[str], stored: str = '', modules: Sequence[str] = ()
) -> tuple[RunConfig, DecodeConfig, str]:
  """Returns the configs from gin files and bindings, and gin text that produces them again.

  Args:
    files: gin files; they and their includes are looked up in the working folder, then among the package's files.
    bindings: bindings of the command line, which take precedence over the files.
    stored: gin text of an earlier run; files and bindings take precedence over it.
    modules: imported modules whose names bindings may use without an import of their own, as in `mine.MyConfig.field`.

  Raises:
    UserError: if a file, name or value is invalid, or if the configuration does not use a binding.
  """
  with _working_folder_last():
    return _load(files, bindings, stored, modules)


@contextlib.contextmanager
def _working_folder_last() -> Iterator[None]:
  """Lets gin files import modules from the working folder; it comes last, as its files may be named like libraries."""
  here = os.path.abspath('')  # noqa: PTH100
  sys.path.append(here)
  try:
    yield
  finally:
    sys.path.reverse()
    sys.path.remove(here)  # the last one
    sys.path.reverse()


def _load(
  files: list[str], bindings: list[str], stored: str, modules: Sequence[str]
) -> tuple[RunConfig, DecodeConfig, str]:
  gin.clear_config()
  package = Path(__file__).parent
  # The working folder, a checkout, and an installed wheel. Gin 0.5 has no public way to replace its own reader, which
  # uses the locale's encoding and leaves byte-order marks in the text.
  gin.config._LOCATION_PREFIXES[:] = ['', str(package.parent), str(package)]
  readers: Any = [(gin_files.Reader().opened, gin_files.is_there)]  # gin's annotation for the first is `open`
  gin.config._FILE_READERS[:] = readers
  gin.parse_config(_HEADER + _default_references())
  if stored:
    _parse('the stored config', lambda: gin.parse_config(stored))
  for path in files:
    _parse(f'--gin_file {path}', lambda path=path: gin.parse_config_file(path))
  bindings = [gin_files.with_present_names(each, f'--gin_bindings {each!r:.200}') for each in bindings]
  for binding in bindings:
    whole = _HEADER + _imports(binding, modules) + binding
    _parse(f'--gin_bindings {binding!r:.200}', lambda whole=whole: gin.parse_config(whole))
  try:
    text = gin.config_str()
    run, decode = gin.get_configurable(RunConfig)(), gin.get_configurable(DecodeConfig)()
    used = gin.operative_config_str().replace('\\\n', ' ')
  except UserError as error:
    raise UserError(str(error)) from error  # removes the lines that gin has added
  except Exception as error:  # gin calls anything that the files name
    raise UserError(f'gin: these values do not make a configuration: {first_line(error)}') from error
  owners = '|'.join(map(re.escape, ('config', *modules)))
  for binding in '\n'.join(bindings).splitlines():
    name = binding.split('=')[0].strip()
    found = re.fullmatch(rf'((?:\w+/)*)(?:{owners})\.(\w+\.\w+)', name)
    # A gin file may import the module under another name.
    if found and not re.search(rf'^{found[1]}[\w.]+\.{found[2]} =', used, re.MULTILINE):
      raise UserError(f'--gin_bindings {binding!r:.200}: this configuration does not use {name}')
  return run, decode, text


def _imports(binding: str, modules: Sequence[str]) -> str:
  """Returns the imports of the modules that a binding names; the others stay out of the gin text that a run stores."""
  named = [name for name in modules if re.search(rf'(?<![\w.]){re.escape(name)}\.', binding)]
  return ''.join(f'import {name}\n' for name in named)


def _parse(where: str, parse: Callable[[], object]) -> None:
  try:
    parse()
  except UserError as error:
    raise UserError(str(error)) from error  # removes the lines that gin has added
  except RecursionError as error:
    raise UserError(f'{where}: includes or brackets are nested too deeply') from error
  except OSError as error:  # gin raises it if there is no file of this name
    _, *rest = str(error).splitlines()
    include = next((f' for {line.strip()}' for line in rest if line.strip().startswith('include')), '')
    raise UserError(f'{where}: no such file{include}') from error
  except Exception as error:  # gin imports anything that the files name, and raises many types of errors
    raise UserError(gin_errors.in_words(error, where)) from error


def _default_references() -> str:
  """Returns references to every nested config, so that bindings of its fields take effect without further bindings."""
  lines = ['DECODING = @config.DecodeConfig()']  # gin needs a reference, and no other config refers to it
  for name in config_lib.__all__:
    kind = getattr(config_lib, name)
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
      if dataclasses.is_dataclass(field.default) and field.default == type(field.default)():
        lines.append(f'config.{name}.{field.name} = @config.{type(field.default).__name__}()')
  return '\n'.join(lines)
