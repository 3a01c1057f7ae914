"""What the routes share: the model, the scheduler, and texts with how they ended."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from terraformer.config.words import meant
from terraformer.decode.bundle import Bundle
from terraformer.decode.decoder import Stats
from terraformer.serving.bodies import Sampling
from terraformer.serving.errors import ApiError, unavailable
from terraformer.serving.generation import PACE_SECONDS, Generation
from terraformer.serving.log import Log
from terraformer.serving.metrics import Metrics
from terraformer.serving.scheduler import Failed, FinishReason, Piece, Scheduler
from terraformer.serving.settings import Settings

_T = TypeVar('_T')
_WHOLE_SECONDS = 1.0  # between looks at a text that is sent when it has ended, since nobody sees its pieces
CLIENT_LEFT = 499  # for the log; nobody receives it


@dataclasses.dataclass(frozen=True)
class End:
  """The end of a text.

  Attributes:
    reason: `stop`, or `length` if a limit ended it.
    stats: its statistics.
  """

  reason: str
  stats: Stats


class Service:
  """One served model.

  Attributes:
    settings: what the server was told.
    bundle: the model.
    scheduler: decodes.
    metrics, log: what is reported.
    created: when the server started, in seconds since 1970.
    is_ready: whether the model is compiled.
    is_ending: whether new requests are refused, since the server is about to end.
  """

  def __init__(self, settings: Settings, bundle: Bundle, scheduler: Scheduler, log: Log):
    """Makes the service of a scheduler that runs."""
    self.settings, self.bundle, self.scheduler, self.log = settings, bundle, scheduler, log
    self.metrics = Metrics(scheduler.status, lambda: log.n_lost)
    self.created = int(time.time())
    self.is_ready = self.is_ending = False

  def prompt(self, text: str, task: str | None) -> str:
    """Returns the prompt for a task; without one it is the text itself.

    Raises:
      ApiError: if the model does not know the task.
    """
    if task is None:
      return text
    if task not in self.settings.tasks:
      known = self.settings.tasks
      which = meant(task[:80], known, 'the tasks are') if known else 'this model has no tasks'
      raise ApiError(400, f'task: unknown task {task!r:.80}; {which}', 'unknown_task', 'task')
    return f'{task}: {text}'

  def require_model(self, name: str | None) -> None:
    """Raises ApiError if a request is for another model."""
    if name is not None and name != self.settings.name:
      raise ApiError(
        404, f'model: there is no model {name!r:.80}; this server has {self.settings.name}', 'model_not_found', 'model'
      )

  async def start(self, body: Sampling, prompts: Sequence[str], n: int = 1) -> Generation:
    """Submits `n` texts for each prompt and returns them.

    Raises:
      ApiError: if the request is refused.
    """
    self.require_model(body.model)
    most = self.settings.max_tokens
    if most is not None and (body.max_tokens or 0) > most:
      raise ApiError(
        400, f'max_tokens: expected at most {most}, found {body.max_tokens}', 'invalid_value', 'max_tokens'
      )
    prompts = [self.prompt(text, body.task) for text in prompts for _ in range(n)]
    configs = [body.config(number, self.settings.cache_dtype, most) for number in range(len(prompts))]
    if self.settings.logs_text:
      self.log.logger.info('prompts %r', prompts)
    generation = Generation(self.scheduler, prompts, configs, self.settings.seconds)
    await generation.start()
    return generation

  async def results(
    self, generation: Generation, seconds: float = PACE_SECONDS
  ) -> AsyncIterator[list[tuple[int, str | End]]]:
    """Yields lists of (number of the text, piece or end), see `Generation.events`; pieces in one list are joined.

    Raises:
      ApiError: if a text failed, or the time was up before it began.
    """
    logged: dict[int, str] = {}
    async for events in generation.events(seconds):
      pieces: dict[int, str] = {}
      ends: list[tuple[int, str | End]] = []
      for number, event in events:
        if isinstance(event, Piece):
          pieces[number] = pieces.get(number, '') + event.text
        elif isinstance(event, Failed):
          self.metrics.count_text('failed', None)
          raise unavailable(event.message, 'failed')
        else:
          self.metrics.count_text(event.reason.name.lower(), event.stats)
          if event.reason is FinishReason.CANCELLED and not event.stats.tokens:
            raise unavailable('the time was up before the text began; try again later', 'timeout', seconds=5)
          ends.append((number, End('stop' if event.reason is FinishReason.STOP else 'length', event.stats)))
      if self.settings.logs_text:
        logged |= {number: logged.get(number, '') + piece for number, piece in pieces.items()}
        for number, _ in ends:
          self.log.logger.info('text %r', logged.get(number, ''))
      yield [*pieces.items(), *ends]

  async def whole(self, request: Request, generation: Generation) -> list[tuple[str, End]]:
    """Returns all texts with their ends, unless the client leaves before.

    Raises:
      ApiError: if a text failed, or the client left.
    """
    texts: dict[int, str] = {}
    ends: dict[int, End] = {}

    async def collect() -> None:
      async for results in self.results(generation, _WHOLE_SECONDS):
        for number, result in results:
          if isinstance(result, End):
            ends[number] = result
          else:
            texts[number] = texts.get(number, '') + result

    try:
      await _while_connected(request, collect())
    finally:
      generation.cancel()
    return [(texts.get(number, ''), ends[number]) for number in sorted(ends)]


class EventStream(StreamingResponse):
  """Server-sent events. However the response ends, the texts that still run are cancelled."""

  def __init__(self, generation: Generation, events: AsyncIterator[str]):
    """Makes the response from events that are written out."""
    super().__init__(events, media_type='text/event-stream', headers={'Cache-Control': 'no-store'})
    self._generation = generation

  async def __call__(self, scope, receive, send) -> None:
    try:
      await super().__call__(scope, receive, send)
    finally:
      self._generation.cancel()


def usage(ends: Sequence[End], n: int = 1) -> dict[str, int]:
  """Returns the token counts of texts; each prompt has `n` texts and counts once."""
  read = sum(end.stats.input_tokens for end in ends[::n])
  written = sum(end.stats.tokens for end in ends)
  return {
    'prompt_tokens': read,
    'completion_tokens': written,
    'total_tokens': read + written,
    'dropped_tokens': sum(end.stats.dropped_tokens for end in ends[::n]),
  }


def note(request: Request, counts: dict[str, Any]) -> None:
  """Adds token counts to the request's line of the log."""
  request.state.note = f'{counts["prompt_tokens"]}+{counts["completion_tokens"]} tokens'


async def _while_connected(request: Request, work: Awaitable[_T]) -> _T:
  """Returns what the work returns; cancels it when the client disconnects.

  Raises:
    ApiError: if the client left.
  """
  working = asyncio.ensure_future(work)
  leaving = asyncio.ensure_future(_disconnected(request))
  try:
    await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
      raise ApiError(CLIENT_LEFT, 'the client left')
    return working.result()
  finally:
    working.cancel()
    leaving.cancel()


async def _disconnected(request: Request) -> None:
  while (await request.receive())['type'] != 'http.disconnect':
    pass
