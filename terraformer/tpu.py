"""Decides whether JAX should look for TPUs."""

import importlib.util
import os
from pathlib import Path


def is_attached() -> bool:
  """Returns whether the system has a device that may be a TPU."""
  return any(Path('/dev').glob('accel[0-9]*')) or any(Path('/dev/vfio').glob('[0-9]*'))


def leave_out_if_absent() -> None:
  """Tells JAX not to look for TPUs if libtpu is installed but the machine has none, which saves time and messages.

  Call it before JAX is imported. It does nothing if the user has set `JAX_PLATFORMS`, or if the machine may have other
  devices.
  """
  said = any(os.environ.get(name) for name in ('JAX_PLATFORMS', 'JAX_FORCE_TPU_INIT', 'TPU_LIBRARY_PATH'))
  is_only_plugin = importlib.util.find_spec('libtpu') and not importlib.util.find_spec('jax_plugins')
  if is_only_plugin and not said and not is_attached():
    os.environ['JAX_PLATFORMS'] = 'cpu'
