"""`/v1/summaries`: a text, or an uploaded file, and what the model writes for it."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from terraformer.serving.bodies import Sampling, SummaryForm, SummaryRequest
from terraformer.serving.completions import ALIVE, DONE, event
from terraformer.serving.errors import ApiError, invalid
from terraformer.serving.files import FileReader, Source
from terraformer.serving.generation import Generation
from terraformer.serving.service import End, EventStream, Service, note, usage

_FORM = 'multipart/form-data'


def make_router(service: Service) -> APIRouter:
  """Returns the route."""
  router = APIRouter(prefix='/v1', tags=['Summaries'])
  files = FileReader()

  @router.post('/summaries', summary='Summarize a text or a file', openapi_extra={'requestBody': _documented()})
  async def summaries(request: Request):
    body, source = await _read(request, files)
    if body.task is None and service.settings.tasks:
      body.task = service.settings.tasks[0]
    generation = await service.start(body, [source.text])
    head = {
      'id': f'sum-{secrets.token_hex(12)}',
      'object': 'summary',
      'created': int(time.time()),
      'model': service.settings.name,
      'source': {'kind': source.kind, 'characters': len(source.text), 'pages': source.pages},
    }
    if body.stream:
      return EventStream(generation, _events(service, request, generation, head))
    ((text, end),) = await service.whole(request, generation)
    note(request, usage([end]))
    return _summary(head, text, end)

  return router


async def _events(service: Service, request: Request, generation: Generation, head: dict) -> AsyncIterator[str]:
  """Yields what is known of the source, the pieces, and the whole summary in the end."""
  yield event({'type': 'source', 'id': head['id'], 'source': head['source']})
  text, end = '', None
  try:
    async for results in service.results(generation):
      for _, result in results:
        if isinstance(result, End):
          end = result
        else:
          text += result
          yield event({'type': 'piece', 'text': result})
      if not results:
        yield ALIVE
  except ApiError as error:
    yield event({'type': 'error'} | error.body())
    return
  if end is not None:
    note(request, usage([end]))
    yield event({'type': 'summary'} | _summary(head, text, end))
  yield DONE


def _summary(head: dict[str, Any], text: str, end: End) -> dict[str, Any]:
  stats = end.stats
  seconds = stats.seconds - stats.first_token_seconds
  return head | {
    'summary': text,
    'finish_reason': end.reason,
    'usage': usage([end]),
    'timing': {
      'first_token_seconds': round(stats.first_token_seconds, 6),
      'seconds': round(stats.seconds, 6),
      'tokens_per_second': round((stats.tokens - 1) / seconds, 3) if seconds > 0 else None,
    },
  }


async def _read(request: Request, files: FileReader) -> tuple[Sampling, Source]:
  """Returns the settings and the text of a request."""
  kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
  if kind == _FORM:
    return await _read_form(request, files)
  if kind != 'application/json':
    raise ApiError(415, f'the body must be application/json or {_FORM}', 'unsupported_media_type')
  try:
    data = json.loads(await request.body())
  except (ValueError, RecursionError) as error:
    raise ApiError(400, f'the body is not valid JSON: {error}', 'invalid_json') from error
  body = _checked(SummaryRequest, data)
  return body, Source(body.text)


async def _read_form(request: Request, files: FileReader) -> tuple[Sampling, Source]:
  async with request.form(max_files=1, max_fields=len(SummaryForm.model_fields)) as form:
    fields = dict(form)
    file = fields.pop('file', None)
    if not isinstance(file, UploadFile):
      raise ApiError(400, 'file: expected a file, found none', 'missing_parameter', 'file')
    uploads = [name for name, value in fields.items() if isinstance(value, UploadFile)]
    if uploads:
      raise ApiError(400, 'expected one file, in the field file', 'invalid_value', uploads[0][:80])
    data = await file.read()
  body = _checked(SummaryForm, {name: value for name, value in fields.items() if value != ''})
  return body, await files.read(data)


def _checked(kind: type[Sampling], data: Any) -> Any:
  try:
    return kind.model_validate(data)
  except ValidationError as error:
    raise invalid(error.errors(), list(kind.model_fields)) from error


class _Upload(SummaryForm):
  file: bytes


def _documented() -> dict[str, Any]:
  """Returns the body in the words of OpenAPI, since the framework does not see a body of two kinds."""
  upload = _schema(_Upload)
  upload['properties']['file'] = {'type': 'string', 'format': 'binary', 'description': 'A text in UTF-8, or a PDF.'}
  content = {'application/json': {'schema': _schema(SummaryRequest)}, _FORM: {'schema': upload}}
  return {'required': True, 'content': content}


def _schema(kind: type[BaseModel]) -> dict[str, Any]:
  return kind.model_json_schema(ref_template='#/components/schemas/{model}')
