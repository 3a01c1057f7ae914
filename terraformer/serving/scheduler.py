"""Continuous batching: requests are decoded side by side, and join and leave while the others go on.

Two threads work. One reads prompts, one at a time, each alone, so that a text is the same as when it is decoded alone.
The other takes steps: between two of them it removes texts that have ended or were cancelled, and adds those whose
prompts were read. Only that thread changes the set of running texts and delivers events, so that there is one order of
what happens.

A request goes through: waiting -> being read -> read -> running -> ended. It is read when fewer than `max_concurrent`
others were taken and the states of all of them fit into memory, each at its full length; the order is that of `submit`.
"""

import collections
import logging
import threading
import time
from typing import Any

from terraformer.config import DecodeConfig, UserError
from terraformer.decode.decoder import Decoder
from terraformer.decode.native.engine import NativeEngine
from terraformer.serving.batch import Batch
from terraformer.serving.events import (
  ClosedError,
  Deliver,
  Event,
  Failed,
  Finished,
  FinishReason,
  Piece,
  QueueFullError,
  Status,
)
from terraformer.serving.memory import available_bytes
from terraformer.serving.rows import Rows
from terraformer.serving.text import Text
from terraformer.serving.turns import Turns

__all__ = [
  'ClosedError',
  'Event',
  'Failed',
  'Finished',
  'FinishReason',
  'Piece',
  'QueueFullError',
  'Request',
  'Scheduler',
  'Status',
]

_ANY_LENGTH = 2**31 - 1  # positions; a cache that hashes depends on its length, so texts cannot share it
_FAILED = 'an error ended the text; try again, and see the log of the server if it happens again'
# A request is assumed to take this long until the first ones have ended.
_USUAL_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Request:
  """A submitted request."""

  def __init__(self, scheduler: 'Scheduler', text: Text, deliver: Deliver):
    """For the scheduler alone; see `Scheduler.submit`."""
    self._scheduler, self._text, self._deliver = scheduler, text, deliver
    self._is_cancelled = self._has_ended = False

  def cancel(self) -> None:
    """Ends the request before the next step, unless it has ended; it then ends with `Finished(CANCELLED)`."""
    self._scheduler._cancel(self)


class Scheduler:
  """Decodes requests side by side.

  All methods may be called by any thread but the scheduler's own, on which events are delivered; `Request.cancel` by
  any thread.
  """

  def __init__(
    self,
    decoder: Decoder,
    max_concurrent: int = 8,
    max_queue: int = 64,
    memory_limit: int | None = None,
    cache_dtype: str = 'float32',
  ):
    """Starts the threads.

    Args:
      decoder: an open decoder, which may not be used otherwise while the scheduler runs.
      max_concurrent: maximum number of texts that are decoded side by side.
      max_queue: maximum number of requests that wait besides.
      memory_limit: maximum bytes of the texts' states; None for half of what is available now.
      cache_dtype: type of keys and values of all requests.
    """
    self._decoder, self._cache_dtype = decoder, cache_dtype
    self._max_concurrent, self._max_queue = max_concurrent, max_queue
    self._memory_limit = available_bytes() // 2 if memory_limit is None else memory_limit
    self._rows = _make_rows(decoder, max_concurrent, cache_dtype)
    self._news = threading.Condition()
    # All of these change under the lock of `_news`.
    self._waiting: collections.deque[Request] = collections.deque()
    self._reading: Request | None = None
    self._read: list[tuple[Request, Any, Exception | None]] = []
    self._running: dict[Request, None] = {}
    self._cancelled: list[Request] = []
    self._is_draining = self._is_closed = False
    self._n_tokens, self._longest_stall, self._mean_seconds = 0, 0.0, _USUAL_SECONDS
    self._threads = [
      threading.Thread(target=work, name=f'scheduler-{name}', daemon=True)
      for name, work in (('reads', self._read_prompts), ('steps', self._take_steps))
    ]
    for thread in self._threads:
      thread.start()

  def warm_up(self) -> None:
    """Compiles the programs of the steps, so that no running text waits for them. Call it before the first request."""
    self._rows.warm_up()

  def submit(self, prompt: str, config: DecodeConfig, deliver: Deliver) -> Request:
    """Submits a request.

    Args:
      prompt: the prompt, see `Decoder.generate`.
      config: how tokens are chosen; without beams.
      deliver: is called with each event, on the scheduler's thread, and never after `Finished` or `Failed`. It must
        not block.

    Raises:
      UserError: if the prompt is not valid text, or is an empty source; or if such a request is never decoded here.
      QueueFullError: if too many requests wait.
      ClosedError: if the scheduler takes no new requests.
    """
    if config.beams > 1:
      raise UserError('beams: texts that are decoded side by side have no beam search; set beams to 1')
    if config.cache_dtype != self._cache_dtype:
      raise UserError(f'cache_dtype: expected {self._cache_dtype}, as all texts here have, found {config.cache_dtype}')
    text = Text(self._decoder.bundle, prompt, config, self._decoder.engine.about)
    needed = self._rows.bytes_of([text.prompts])
    if needed > self._memory_limit:
      limit = f'{self._memory_limit / 1e6:,.0f} MB, the limit of memory'
      raise UserError(f'max_tokens: it would take {needed / 1e6:,.0f} MB, more than {limit}; ask for less')
    request = Request(self, text, deliver)
    with self._news:
      if self._is_draining:
        raise ClosedError('the scheduler takes no new requests')
      if self._n_inside() >= self._max_concurrent + self._max_queue:
        raise QueueFullError(max(1.0, self._mean_seconds * len(self._waiting) / self._max_concurrent))
      self._waiting.append(request)
      self._news.notify_all()
    return request

  def status(self) -> Status:
    """Returns what happens at this moment."""
    with self._news:
      return Status(
        running=len(self._running),
        reading=len(self._taken()) - len(self._running),
        queued=len(self._waiting),
        tokens=self._n_tokens,
        longest_stall=self._longest_stall,
        memory_bytes=self._bytes_of(self._taken()),
        memory_limit=self._memory_limit,
        is_draining=self._is_draining,
      )

  def drain(self, timeout: float) -> None:
    """Takes no new requests from now on, and returns when all others have ended or after `timeout` seconds."""
    with self._news:
      self._is_draining = True
      self._news.wait_for(lambda: not self._n_inside(), timeout)

  def close(self) -> None:
    """Cancels all requests, and returns when the threads have ended; one of them may be reading a prompt."""
    with self._news:
      self._is_draining = self._is_closed = True
      self._news.notify_all()
    for thread in self._threads:
      thread.join()

  def _cancel(self, request: Request) -> None:
    with self._news:
      if not request._is_cancelled and not request._has_ended:
        request._is_cancelled = True
        self._cancelled.append(request)
        self._news.notify_all()

  def _taken(self) -> list[Request]:
    """Returns the requests that are being read, were read, or run."""
    reading = [] if self._reading is None else [self._reading]
    return [*self._running, *(request for request, _, _ in self._read), *reading]

  def _n_inside(self) -> int:
    """Returns the number of requests that have not ended."""
    return len(self._waiting) + sum(not request._has_ended for request in self._taken())

  def _bytes_of(self, requests: list[Request]) -> int:
    return self._rows.bytes_of([request._text.prompts for request in requests])

  def _may_read(self) -> bool:
    """Returns whether the first of the waiting requests can be read now."""
    if not self._waiting or len(taken := self._taken()) >= self._max_concurrent:
      return False
    return self._bytes_of([*taken, self._waiting[0]]) <= self._memory_limit

  def _read_prompts(self) -> None:
    """Reads one prompt after another; the work of the first thread."""
    while True:
      with self._news:
        self._news.wait_for(lambda: self._is_closed or self._may_read())
        if self._is_closed:
          return
        request = self._reading = self._waiting.popleft()
      text, read, error = request._text, None, None
      try:
        read = self._rows.read(text.prompts, text.config) if text.stats.room else None
      except Exception as caught:
        error = caught
      with self._news:
        self._reading = None
        self._read.append((request, read, error))
        self._news.notify_all()

  def _take_steps(self) -> None:
    """Takes steps, and delivers what happens; the work of the second thread."""
    last_step = None
    while True:
      with self._news:
        self._news.wait_for(lambda: self._running or self._read or self._cancelled or self._is_closed)
        if self._is_closed:
          left = [*self._waiting, *self._taken()]
          self._waiting.clear()
        else:
          left, self._cancelled = self._cancelled, []
        read, self._read = self._read, []
        # Those that wait to join count as running from here on, so that no others take their places.
        self._running |= {request: None for request, _, _ in read if not request._has_ended}
        if read:
          self._news.notify_all()  # one that was cancelled while it was read has left a place
      for request in left:
        self._end(request, Finished(FinishReason.CANCELLED, request._text.stats))
      if self._is_closed:
        return
      for request, state, error in read:
        self._join(request, state, error)
      if not self._running:
        last_step = None
        continue
      self._step()
      now = time.perf_counter()
      if last_step is not None:
        self._longest_stall = max(self._longest_stall, now - last_step)
      last_step = now if self._running else None

  def _join(self, request: Request, state: Any, error: Exception | None) -> None:
    """Adds a request whose prompt was read to those that run, unless it has ended."""
    if request._has_ended:
      return
    if error is not None:
      self._fail(request, error)
    elif not request._text.stats.room:
      self._end(request, Finished(FinishReason.LENGTH, request._text.stats))
    else:
      try:
        self._rows.join(request, state)
      except Exception as caught:
        self._fail_all(caught)

  def _step(self) -> None:
    """Takes a step, and delivers what it gives."""
    try:
      tokens = self._rows.step()
    except Exception as caught:
      self._fail_all(caught)
      return
    for request, token in tokens:
      if request._has_ended:
        continue
      self._n_tokens += 1
      try:
        piece, reason = request._text.add(token)
      except Exception as caught:
        self._fail(request, caught)
        continue
      if piece:
        self._tell(request, Piece(piece))
      if reason is not None:
        self._end(request, Finished(reason, request._text.stats))

  def _fail_all(self, error: Exception) -> None:
    """Ends all running requests; the engine's state may be lost."""
    self._rows.clear()
    for request in list(self._running):
      self._fail(request, error)

  def _fail(self, request: Request, error: Exception) -> None:
    _log.error('a text failed', exc_info=error)
    self._end(request, Failed(str(error) if isinstance(error, UserError) else _FAILED))

  def _end(self, request: Request, event: Finished | Failed) -> None:
    """Ends a request: frees its place, and delivers its last event."""
    if request._has_ended:
      return
    self._rows.leave(request)
    with self._news:
      request._has_ended = True
      self._running.pop(request, None)
      if request in self._waiting:
        self._waiting.remove(request)
      seconds = request._text.stats.seconds
      if seconds:
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
      self._news.notify_all()
    self._tell(request, event)

  def _tell(self, request: Request, event: Event) -> None:
    """Delivers an event; a request whose receiver fails is cancelled."""
    try:
      request._deliver(event)
    except Exception:
      _log.exception('the receiver of a text failed')
      request.cancel()


def _make_rows(decoder: Decoder, max_concurrent: int, cache_dtype: str) -> Rows:
  bundle, engine = decoder.bundle, decoder.engine
  if isinstance(engine, NativeEngine) and engine.can_grow(_ANY_LENGTH):
    lengths = bundle.inputs_length, bundle.targets_length
    return Batch(engine, bundle.model, bundle.tokenizer.size, cache_dtype, max_concurrent, lengths)
  return Turns(engine, bundle.model, bundle.tokenizer.size, cache_dtype)
