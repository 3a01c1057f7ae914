"""Imports the user's modules that `--module` names."""

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence

from terraformer.config import UserError, first_line


def import_modules(names: Sequence[str]) -> None:
  """Imports modules, so that they register tasks or define configs.

  Raises:
    UserError: if a module cannot be imported; names the first one.
  """
  for name in names:
    try:
      _import(name)
    except UserError as error:
      raise UserError(f'--module {name}: {error}') from error
    except (Exception, SystemExit) as error:  # a user's code may raise anything
      found = first_line(f'{type(error).__name__}: {error}')
      raise UserError(f'--module {name}: cannot import this module: {found}') from error


def _import(name: str) -> None:
  """Imports a module from the working folder if it is there; imports inside the module search this folder last."""
  top = name.partition('.')[0]
  found = importlib.machinery.PathFinder.find_spec(top, [os.path.abspath('')])  # noqa: PTH100
  if found and found.loader and top not in sys.modules:
    sys.modules[top] = importlib.util.module_from_spec(found)
    try:
      found.loader.exec_module(sys.modules[top])
    except BaseException:
      del sys.modules[top]
      raise
  importlib.import_module(name)
