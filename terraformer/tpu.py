"""Whether JAX is to look for TPUs."""

import importlib.util
import os
from pathlib import Path


def is_attached() -> bool:
  """Whether the system has a device of the kind that TPUs are."""
  return any(Path('/dev').glob('accel[0-9]*')) or any(Path('/dev/vfio').glob('[0-9]*'))


def leave_out_if_absent() -> None:
  """Where libtpu is installed and no TPU is, JAX asks it in vain, which takes time and several lines on the terminal.

  To be called before JAX is imported. What the user says in `JAX_PLATFORMS` counts, and where other devices may be,
  nothing is done.
  """
  said = any(os.environ.get(name) for name in ('JAX_PLATFORMS', 'JAX_FORCE_TPU_INIT', 'TPU_LIBRARY_PATH'))
  is_only_plugin = importlib.util.find_spec('libtpu') and not importlib.util.find_spec('jax_plugins')
  if is_only_plugin and not said and not is_attached():
    os.environ['JAX_PLATFORMS'] = 'cpu'
