"""The texts of one HTTP request: submitted to the scheduler, and received on the event loop."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Sequence

from starlette.concurrency import run_in_threadpool

from terraformer.config import DecodeConfig, UserError
from terraformer.serving.errors import ApiError, retry_after, unavailable
from terraformer.serving.scheduler import ClosedError, Failed, Finished, Piece, QueueFullError, Request, Scheduler

Event = Piece | Finished | Failed
_ENDS = Finished, Failed
# Pieces of a stream that arrive within this time are sent together. Nobody sees the difference, and the event loop
# leaves the cores to the model.
PACE_SECONDS = 0.02
# A stream in which nothing happens for so long sends a sign of life.
_QUIET_SECONDS = 10.0


class Generation:
  """The texts of one request. Whoever starts it must cancel it in the end, also if all texts have ended."""

  def __init__(self, scheduler: Scheduler, prompts: Sequence[str], configs: Sequence[DecodeConfig], seconds: float):
    """Prepares the texts.

    Args:
      scheduler: decodes them.
      prompts: one for each text.
      configs: how each is decoded.
      seconds: the most time that the request may take, waiting included.
    """
    self._scheduler, self._texts = scheduler, list(zip(prompts, configs, strict=True))
    self._loop = asyncio.get_running_loop()
    self._deadline = self._loop.time() + seconds
    self._lock = threading.Lock()
    self._requests: list[Request] = []
    self._is_left = False
    self._events: list[tuple[int, Event]] = []
    self._n_ended = 0
    self._news, self._end = asyncio.Event(), asyncio.Event()

  async def start(self) -> None:
    """Submits all texts.

    Raises:
      ApiError: if the queue is full, the server is about to end, or a prompt is no text that the model reads.
    """
    try:
      await run_in_threadpool(self._submit)
    except BaseException as error:
      self.cancel()
      raise _as_api_error(error) from error

  def cancel(self) -> None:
    """Cancels all texts that have not ended."""
    with self._lock:
      self._is_left = True
      requests, self._requests = self._requests, []
    for request in requests:
      request.cancel()

  async def events(self, seconds: float = PACE_SECONDS) -> AsyncIterator[list[tuple[int, Event]]]:
    """Yields lists of (number of the text, event) until all texts have ended; an empty list if nothing comes for long.

    Lists after the first come at most every `seconds`, but the last one at once. When the time is up, the running texts
    are cancelled and end as they are.
    """
    pace = 0.0
    while True:
      await _wait(self._end, max(0.0, min(pace, self._deadline - self._loop.time())))
      left = self._deadline - self._loop.time()
      if left <= 0:
        self.cancel()
      await _wait(self._news, min(left, _QUIET_SECONDS) if left > 0 else _QUIET_SECONDS)
      with self._lock:
        events, self._events = self._events, []
        self._news.clear()
        has_ended = self._n_ended == len(self._texts)
      if events or left > _QUIET_SECONDS:
        yield events
      if has_ended:
        return
      pace = seconds

  def _submit(self) -> None:
    for number, (prompt, config) in enumerate(self._texts):
      request = self._scheduler.submit(prompt, config, functools.partial(self._deliver, number))
      with self._lock:
        is_left = self._is_left
        self._requests.append(request)
      if is_left:
        request.cancel()
        return

  def _deliver(self, number: int, event: Event) -> None:
    """Receives an event on the scheduler's thread; wakes the event loop at the first of several."""
    with self._lock:
      is_first = not self._events
      self._events.append((number, event))
      self._n_ended += isinstance(event, _ENDS)
      is_end = self._n_ended == len(self._texts)
    if is_first or is_end:
      with contextlib.suppress(RuntimeError):  # the loop has ended
        self._loop.call_soon_threadsafe(self._wake, is_end)

  def _wake(self, is_end: bool) -> None:
    if self._events:
      self._news.set()
    if is_end:
      self._end.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
  """Waits for the event, but not longer than this."""
  with contextlib.suppress(TimeoutError):
    await asyncio.wait_for(event.wait(), seconds)


def _as_api_error(error: BaseException) -> BaseException:
  if isinstance(error, QueueFullError):
    message = 'the queue is full; try again later'
    return ApiError(429, message, 'queue_full', headers=retry_after(error.retry_after))
  if isinstance(error, ClosedError):
    return unavailable('the server is about to end; try again when it is back', 'shutting_down')
  if isinstance(error, UserError):
    return ApiError(400, str(error).removeprefix('input: '), 'invalid_prompt')
  return error
