"""Finds and loads the shared library, and registers its step with JAX."""

import ctypes
import functools
import importlib.util
from pathlib import Path

import jax

STEP = 'terraformer_native_step'


class Call(ctypes.Structure):
  """`native::Call` of csrc/model.h."""

  _fields_ = (
    ('batch', ctypes.c_int64),
    ('input', ctypes.c_void_p),
    ('output', ctypes.c_void_p),
    ('lengths', ctypes.c_void_p),
    ('pages', ctypes.c_void_p),
    ('n_pages', ctypes.c_int64),
    ('memory_lengths', ctypes.c_void_p),
    ('memory', ctypes.c_void_p),
    ('n_memory_pages', ctypes.c_int64),
    ('state', ctypes.c_void_p),
    ('tables', ctypes.c_void_p),
    ('given_units', ctypes.c_void_p),
    ('units', ctypes.c_void_p),
  )


def library() -> ctypes.CDLL:
  """Returns the library; JAX knows its step from then on.

  Raises:
    OSError: if there is none; the message says why.
  """
  found = _load()
  if isinstance(found, str):
    raise OSError(found)
  return found


def why_missing() -> str | None:
  """Returns why there is no library, or None if there is one."""
  found = _load()
  return found if isinstance(found, str) else None


def variants() -> list[str]:
  """Returns the names of the variants that this processor runs, fastest first."""
  names, loaded = [], library()
  while name := loaded.native_variant_name(len(names)):
    names.append(name.decode())
  return names


def path() -> Path | None:
  """Returns the path of the library, or None if it was not built."""
  spec = importlib.util.find_spec('terraformer.native._kernels')
  return None if spec is None or spec.origin is None else Path(spec.origin)


@functools.cache
def _load() -> ctypes.CDLL | str:
  where = path()
  if where is None:
    return 'the package was installed without a C++ compiler'
  try:
    loaded = ctypes.CDLL(str(where))
    _declare(loaded)
    jax.ffi.register_ffi_target(STEP, jax.ffi.pycapsule(loaded.native_step), platform='cpu')
  except (OSError, AttributeError) as error:
    return f'{where}: {error}'
  return loaded


def _declare(loaded: ctypes.CDLL) -> None:
  text, number = ctypes.c_char_p, ctypes.c_int64
  declared = {
    'native_open': (
      number,
      (
        ctypes.c_void_p,
        number,
        ctypes.c_void_p,
        ctypes.c_void_p,
        number,
        ctypes.c_int32,
        text,
        ctypes.c_void_p,
        number,
      ),
    ),
    'native_close': (None, (number,)),
    'native_run': (ctypes.c_int32, (number, ctypes.POINTER(Call), ctypes.c_void_p, number)),
    'native_threads': (ctypes.c_int32, (number,)),
    'native_variant': (text, (number,)),
    'native_variant_name': (text, (ctypes.c_int32,)),
  }
  for name, (result, arguments) in declared.items():
    function = getattr(loaded, name)
    function.restype, function.argtypes = result, arguments
