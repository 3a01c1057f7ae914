"""Settings of libraries that must be made before they are imported: log messages, and the cache of programs."""

import contextlib
import logging
import os
import sys
import warnings

from terraformer import paths, tpu


def quiet() -> None:
  """Hides the log messages of libraries. Errors that they log are also raised, and commands report those."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  tpu.leave_out_if_absent()
  # If a save fails, orbax logs every array, and Python warns that nobody awaits the remaining writers.
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
  sys.unraisablehook = _tell_unless_of_a_closed_loop


def _tell_unless_of_a_closed_loop(unraisable) -> None:
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def cache_compilations() -> None:
  """Caches compiled programs between processes, so that a second start takes one second instead of ten."""
  import jax

  # If a program cannot be cached, it is compiled again.
  warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache')
  folder = paths.cache_folder()
  with contextlib.suppress(OSError):
    paths.make_folder(folder)
  jax.config.update('jax_compilation_cache_dir', str(paths.plain(folder / 'xla')))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
