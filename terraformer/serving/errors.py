"""Errors of the HTTP API, in the shape that clients of the OpenAI API read."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from terraformer.config.base import printable
from terraformer.config.words import resembling

_LONGEST_MESSAGE = 500  # characters
_KINDS = {401: 'authentication_error', 404: 'not_found_error', 429: 'rate_limit_error'}
# How pydantic names the options of a field that takes several types.
_OPTION = re.compile(r'str|list\[.*\]|[A-Z]\w*')
_SENTENCES = {
  404: 'there is nothing at this address; /docs lists what there is',
  405: 'this address does not take this method; /docs lists what there is',
}


class ErrorDetail(BaseModel):
  """What went wrong."""

  message: str
  type: str
  param: str | None
  code: str | None


class ErrorBody(BaseModel):
  """The body of every error."""

  error: ErrorDetail


class ApiError(Exception):
  """A request that gets no answer.

  Attributes:
    status: the HTTP status.
    message: one sentence that says what is wrong and what to do.
    code: a word that programs can compare.
    param: the name of the parameter at fault, if there is one.
    headers: headers of the response.
  """

  def __init__(
    self, status: int, message: str, code: str | None = None, param: str | None = None, headers: Mapping | None = None
  ):
    super().__init__(message)
    self.status, self.code, self.param = status, code, param
    self.message = printable(message)[:_LONGEST_MESSAGE]
    self.headers = dict(headers or {})

  def body(self) -> dict[str, Any]:
    """Returns the JSON body."""
    kind = _KINDS.get(self.status, 'server_error' if self.status >= 500 else 'invalid_request_error')
    return {'error': {'message': self.message, 'type': kind, 'param': self.param, 'code': self.code}}

  def response(self) -> JSONResponse:
    """Returns the whole response."""
    return JSONResponse(self.body(), self.status, self.headers)


def unavailable(message: str, code: str, seconds: float = 1) -> ApiError:
  """Returns the error of a server that cannot answer now, and may in some seconds."""
  return ApiError(503, message, code, headers=retry_after(seconds))


def retry_after(seconds: float) -> dict[str, str]:
  """Returns the header that says when to try again."""
  return {'Retry-After': str(max(1, round(seconds)))}


async def on_api_error(_, error: ApiError) -> JSONResponse:
  """Handles an `ApiError` that is raised anywhere."""
  return error.response()


async def on_http_error(_, error: HTTPException) -> JSONResponse:
  """Handles what the framework refuses: unknown addresses and methods, and bodies that it cannot read."""
  if isinstance(error.__cause__, ApiError):  # of the body; the framework turns every error while reading it into 400
    return error.__cause__.response()
  if error.__cause__ is not None and error.status_code == 400:
    return ApiError(400, 'the body is not valid JSON', 'invalid_json').response()
  message = _SENTENCES.get(error.status_code, str(error.detail))
  return ApiError(error.status_code, message, headers=error.headers).response()


async def on_failure(_, error: Exception) -> JSONResponse:
  """Handles an error of this program; the log has it."""
  return ApiError(500, 'the server failed on this request; its log says more', 'failed').response()


def invalid(problems: Sequence[Mapping[str, Any]], known: Sequence[str] = ()) -> ApiError:
  """Returns the error for the first of pydantic's problems.

  Args:
    problems: as pydantic lists them.
    known: names of parameters, for a name that is misspelt.
  """
  problem = _first(problems)
  kind, context = problem['type'], problem.get('ctx', {})
  names = [str(each) for each in problem['loc'] if each != 'body']
  param = str(context.get('param') or '.'.join(name for name in names if not _OPTION.fullmatch(name))) or None
  if kind == 'json_invalid':
    return ApiError(400, f'the body is not valid JSON: {context.get("error", "it cannot be read")}', 'invalid_json')
  if kind == 'extra_forbidden':
    found = resembling(names[-1], known)
    return ApiError(
      400,
      f'there is no parameter {names[-1]!r:.80}{f"; did you mean {found[0]}?" if found else "; /docs lists them"}',
      'unknown_parameter',
      _short(param),
    )
  if kind == 'missing':
    return ApiError(400, f'{param or "the body"} is missing', 'missing_parameter', _short(param))
  code = kind if kind in ('unsupported_parameter', 'unsupported_value') else 'invalid_value'
  sentence = problem['msg'][:1].lower() + problem['msg'][1:]
  return ApiError(400, f'{param or "the body"}: {sentence}', code, _short(param))


def _first(problems: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
  """Returns the problem to report: of a value that may have several types, the one that came furthest into it."""
  names = [each for each in problems[0]['loc'] if each != 'body'][:1]
  same = [each for each in problems if [name for name in each['loc'] if name != 'body'][:1] == names]
  return max(same, key=lambda each: sum(isinstance(name, int) for name in each['loc']))


def _short(param: str | None) -> str | None:
  return None if param is None else printable(param)[:80]
