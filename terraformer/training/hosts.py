"""Connects several processes that train one model, and keeps them in agreement.

Every process runs the same program in the same order. If only one process sees something, such as a damaged file or a
signal, it must tell the others before any process acts on it.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from terraformer import tpu
from terraformer.config import UserError, words
from terraformer.files import NO_ROOM, UnwritableError

_FAILED = -1
_PATIENCE = 1800  # seconds: replacing a machine takes a while

# Messages of JAX and gloo when another process or the network to it is gone.
_LOSSES = ('UNAVAILABLE', 'DEADLINE_EXCEEDED', 'ABORTED', 'CANCELLED', 'eartbeat', 'onnection', 'Gloo', 'barrier')


class LostError(RuntimeError):
  """Another process cannot be reached."""


def is_loss(error: Exception) -> bool:
  """Whether an error means that another process or a mounted disk is lost."""
  if isinstance(error, UnwritableError):
    return error.number not in NO_ROOM
  if isinstance(error, OSError):  # TimeoutError is one
    return True
  return isinstance(error, jax.errors.JaxRuntimeError) and any(text in str(error) for text in _LOSSES)


def connect(
  coordinator: str | None = None, processes: int | None = None, process: int | None = None, silence: int = 100
) -> None:
  """Joins the processes of a run before anything uses a device; does nothing for a single process.

  On a Cloud TPU slice, the arguments are not needed: the hosts find each other.

  Args:
    coordinator: HOST:PORT of process 0.
    processes: number of processes.
    process: number of this process, from 0.
    silence: seconds without a heartbeat after which a process counts as lost and the others exit.

  Raises:
    UserError: if only some of the first three are given, the process number is too large, or the address is invalid.
    LostError: if the others do not connect within half an hour.
  """
  given = {'--coordinator_address': coordinator, '--num_processes': processes, '--process_id': process}
  missing = [name for name, value in given.items() if value is None]
  if 0 < len(missing) < len(given):
    named = words.any_of([name for name in given if name not in missing], 'and')
    add = 'it' if len(missing) == 1 else 'them'
    raise UserError(f'{words.any_of(missing, "and")}: expected together with {named}; add {add}')
  if not missing and process >= processes:
    raise UserError(f'--process_id: expected less than --num_processes ({processes}), found {process}')
  if not missing and not _has_port(coordinator):
    raise UserError(f'--coordinator_address: expected HOST:PORT with a port from 1 to 65535, found {coordinator}')
  if missing and not _on_cloud_tpu():
    return
  try:
    if missing:
      jax.distributed.initialize(initialization_timeout=_PATIENCE, heartbeat_timeout_seconds=silence)
    else:
      jax.distributed.initialize(
        coordinator, processes, process, initialization_timeout=_PATIENCE, heartbeat_timeout_seconds=silence
      )
  except ValueError as error:
    raise UserError(f'--coordinator_address {coordinator}: cannot use it as HOST:PORT of process 0: {error}') from error
  except RuntimeError as error:
    raise LostError(f'cannot connect to the other processes: {error}') from error


def _has_port(address: str) -> bool:
  host, _, port = address.rpartition(':')
  return bool(host) and re.fullmatch('[0-9]{1,5}', port) is not None and 0 < int(port) < 2**16


def are_several() -> bool:
  """Whether this process is one of several."""
  return jax.process_count() > 1


def describe() -> str:
  """Describes the devices of a run: `8 cpu devices of 2 processes`."""
  n, kind, processes = jax.device_count(), jax.devices()[0].device_kind, jax.process_count()
  return f'{n} {kind} device{"s" * (n > 1)}' + (f' of {processes} processes' if processes > 1 else '')


def shutdown() -> None:
  """Shuts down in order: waits for all processes."""
  jax.distributed.shutdown()


def exit_now(status: int) -> NoReturn:
  """Exits this process only; an orderly shutdown would wait for other processes, which may be gone."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def is_main() -> bool:
  """Whether this process writes the shared files."""
  return jax.process_index() == 0


def per_process_name(name: str) -> str:
  """Returns a file name, with the process number if there are several, since they write to one folder."""
  stem, _, suffix = name.rpartition('.')
  return f'{stem}.{jax.process_index()}.{suffix}' if are_several() else name


def broadcast_from_main(find: Callable[[], int]) -> int:
  """Returns to all processes the nonnegative number that `find` returns in process 0; only process 0 calls it.

  Raises:
    UserError: in process 0 if `find` raises it, and then in the others too, with a reference to process 0.
  """
  if not are_several():
    return find()
  failure = None
  found = 0
  if is_main():
    try:
      found = find()
    except UserError as error:
      found, failure = _FAILED, error
  found = int(multihost_utils.broadcast_one_to_all(np.int64(found)))
  if failure is not None:
    raise failure
  if found == _FAILED:
    raise UserError('process 0 stopped with an error; see its log')
  return found


def _on_cloud_tpu() -> bool:
  if os.environ.get('JAX_PLATFORMS', '') not in ('', 'tpu') or importlib.util.find_spec('libtpu') is None:
    return False
  return tpu.is_attached()
