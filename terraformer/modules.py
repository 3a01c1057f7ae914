"""Modules of the user's that commands are told of."""

import importlib
from collections.abc import Sequence

from terraformer.config import UserError


def import_modules(names: Sequence[str]) -> None:
  """Imports them, for what they register or define.

  Raises:
    UserError: naming the first that cannot be imported.
  """
  for name in names:
    try:
      importlib.import_module(name)
    except UserError as error:
      raise UserError(f'--module {name}: {error}') from error
    except (Exception, SystemExit) as error:  # whatever the user's code does
      found = f'{type(error).__name__}: {error}'.splitlines()[0]
      raise UserError(f'--module {name}: expected a Python module that can be imported, found {found}') from error
