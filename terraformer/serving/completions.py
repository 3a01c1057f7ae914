"""`/v1/completions` and `/v1/chat/completions`, as clients of the OpenAI API call them."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from terraformer.serving.bodies import ChatRequest, CompletionRequest
from terraformer.serving.errors import ApiError
from terraformer.serving.generation import Generation
from terraformer.serving.service import End, EventStream, Service, note, usage

DONE = 'data: [DONE]\n\n'
ALIVE = ': still here\n\n'


def event(data: dict[str, Any]) -> str:
  """Returns one server-sent event."""
  return f'data: {json.dumps(data, ensure_ascii=False, separators=(",", ":"))}\n\n'


def make_router(service: Service) -> APIRouter:
  """Returns the two routes."""
  router = APIRouter(prefix='/v1', tags=['OpenAI'])

  @router.post('/completions', summary='Write texts for prompts')
  async def completions(body: CompletionRequest, request: Request):
    return await _answer(service, request, body, body.prompts, _Completion)

  @router.post('/chat/completions', summary="Write a text for the user's last message")
  async def chat(body: ChatRequest, request: Request):
    return await _answer(service, request, body, [body.prompt], _Chat)

  return router


class _Completion:
  """The words of `/v1/completions`."""

  prefix, whole, chunk = 'cmpl-', 'text_completion', 'text_completion'

  @staticmethod
  def choice(text: str) -> dict[str, Any]:
    return {'text': text, 'logprobs': None}

  piece = choice

  @staticmethod
  def first() -> dict[str, Any] | None:
    return None

  @staticmethod
  def last() -> dict[str, Any]:
    return {'text': '', 'logprobs': None}


class _Chat:
  """The words of `/v1/chat/completions`."""

  prefix, whole, chunk = 'chatcmpl-', 'chat.completion', 'chat.completion.chunk'

  @staticmethod
  def choice(text: str) -> dict[str, Any]:
    return {'message': {'role': 'assistant', 'content': text, 'refusal': None}, 'logprobs': None}

  @staticmethod
  def piece(text: str) -> dict[str, Any]:
    return {'delta': {'content': text}, 'logprobs': None}

  @staticmethod
  def first() -> dict[str, Any] | None:
    return {'delta': {'role': 'assistant', 'content': ''}, 'logprobs': None}

  @staticmethod
  def last() -> dict[str, Any]:
    return {'delta': {}, 'logprobs': None}


_Words = type[_Completion] | type[_Chat]


async def _answer(
  service: Service, request: Request, body: CompletionRequest | ChatRequest, prompts: list[str], words: _Words
) -> Any:
  n = body.n or 1
  head = {'id': f'{words.prefix}{secrets.token_hex(12)}', 'created': int(time.time()), 'model': service.settings.name}
  if body.stream_options is not None and not body.stream:
    raise ApiError(400, 'stream_options: expected only with stream=true', 'invalid_value', 'stream_options')
  generation = await service.start(body, prompts, n)
  if body.stream:
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    events = _events(service, request, generation, head | {'object': words.chunk}, words, len(prompts), n, with_usage)
    return EventStream(generation, events)
  texts = await service.whole(request, generation)
  counts = usage([end for _, end in texts], n)
  note(request, counts)
  choices = [
    {'index': number, **words.choice(text), 'finish_reason': end.reason} for number, (text, end) in enumerate(texts)
  ]
  return _json(head | {'object': words.whole, 'choices': choices, 'usage': counts})


async def _events(
  service: Service,
  request: Request,
  generation: Generation,
  head: dict[str, Any],
  words: _Words,
  n_prompts: int,
  n: int,
  with_usage: bool,
) -> AsyncIterator[str]:
  """Yields the events of a stream."""
  tail = {'usage': None} if with_usage else {}

  def chunk(number: int, choice: dict[str, Any], reason: str | None = None) -> str:
    return event(head | {'choices': [{'index': number, **choice, 'finish_reason': reason}]} | tail)

  ends: dict[int, End] = {}
  if (first := words.first()) is not None:
    yield ''.join(chunk(number, first) for number in range(n_prompts * n))
  try:
    async for results in service.results(generation):
      sent = []
      for number, result in results:
        if isinstance(result, End):
          ends[number] = result
          sent.append(chunk(number, words.last(), result.reason))
        else:
          sent.append(chunk(number, words.piece(result)))
      yield ''.join(sent) or ALIVE
  except ApiError as error:
    yield event(error.body())
    return
  counts = usage([ends[number] for number in sorted(ends)], n)
  note(request, counts)
  if with_usage:
    yield event(head | {'choices': [], 'usage': counts})
  yield DONE


def _json(data: dict[str, Any]) -> Response:
  return Response(json.dumps(data, ensure_ascii=False, separators=(',', ':')), media_type='application/json')
