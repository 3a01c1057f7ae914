"""Writes TensorBoard events from the calling thread.

The writer in tensorboardX uses its own thread, which dies if the disk is full; then the callers wait forever.
"""

import socket
import time
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

_FLUSH_SECONDS = 10


class Events:
  """A file of events, which replace the events of earlier files in TensorBoard from `first_step` on."""

  def __init__(self, directory: Path, first_step: int):
    directory.mkdir(parents=True, exist_ok=True)
    self._records = RecordWriter(str(directory / f'events.out.tfevents.{time.time():.0f}.{socket.gethostname()}'))
    self._flushed = 0.0
    self._add(Event(file_version='brain.Event:2'))
    self._add(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

  def add(self, step: int, summary: Summary) -> None:
    """Adds a summary from `tensorboardX.summary`; it reaches the disk within seconds, or when the file is closed."""
    self._add(Event(step=step, summary=summary))

  def _add(self, event: Event) -> None:
    event.wall_time = time.time()
    self._records.write(event.SerializeToString())
    if event.wall_time >= self._flushed + _FLUSH_SECONDS:
      self._flushed = event.wall_time
      self._records.flush()

  def close(self) -> None:
    """Writes the remaining events."""
    self._records.close()
