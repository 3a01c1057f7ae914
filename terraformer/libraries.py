"""What libraries are told before they are imported: what to say, and where to keep programs."""

import contextlib
import logging
import os
import sys
import warnings

from terraformer import paths, tpu


def quiet() -> None:
  """Notices are not for users, and what is logged as an error is raised as well, and told in a sentence."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  tpu.leave_out_if_absent()
  # Of a save that fails orbax logs each array, and the writers of all others find that nobody waits for them.
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)
  warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
  sys.unraisablehook = _tell_unless_of_a_closed_loop


def _tell_unless_of_a_closed_loop(unraisable) -> None:
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def cache_compilations() -> None:
  """Keeps compiled programs between processes: a second start takes a second, not ten."""
  import jax

  # Where a program cannot be kept, it is compiled again.
  warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache')
  folder = paths.cache_folder()
  with contextlib.suppress(OSError):
    paths.make_folder(folder)
  jax.config.update('jax_compilation_cache_dir', str(paths.plain(folder / 'xla')))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
