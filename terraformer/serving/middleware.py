"""What happens to every request before its route: the key, limits of the body, headers, the log."""

import asyncio
import hmac
import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from terraformer.serving.errors import ApiError, unavailable
from terraformer.serving.service import CLIENT_LEFT, Service

_PROTECTED = ('/v1/', '/metrics')
_WORK = '/v1/'
_HEADERS = {'X-Content-Type-Options': 'nosniff', 'X-Frame-Options': 'DENY', 'Referrer-Policy': 'no-referrer'}


class Gate:
  """Admits requests: those with the key, while the server is not about to end, with a body that is not too long."""

  def __init__(self, app: ASGIApp, service: Service):
    """Puts the gate before an application."""
    self._app, self._service = app, service

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    try:
      self._admit(scope)
    except ApiError as error:
      await error.response()(scope, receive, send)
      return
    body = _Body(receive, self._service.settings.body_bytes, self._service.settings.body_seconds)
    started = False

    async def sent(message: Message) -> None:
      nonlocal started
      started = True
      await send(message)

    try:
      await self._app(scope, body.receive, sent)
    except ApiError as error:  # of the body, which a framework reads in its own ways
      if not started:
        await error.response()(scope, receive, send)

  def _admit(self, scope: Scope) -> None:
    settings, headers = self._service.settings, Headers(scope=scope)
    if settings.api_key and scope['path'].startswith(_PROTECTED):
      given = headers.get('authorization', '').removeprefix('Bearer ')
      if not hmac.compare_digest(given.encode(), settings.api_key.encode()):
        message = 'the API key is wrong' if given else 'give the API key, as in Authorization: Bearer KEY'
        raise ApiError(401, message, 'invalid_api_key', headers={'WWW-Authenticate': 'Bearer'})
    if scope['method'] != 'POST' or not scope['path'].startswith(_WORK):
      return
    if self._service.is_ending:
      raise unavailable('the server is about to end; try again when it is back', 'shutting_down')
    if not self._service.is_ready:
      raise unavailable('the model is not ready yet; try again soon', 'not_ready')
    length = headers.get('content-length', '')
    if length.isdigit() and int(length[:20]) > settings.body_bytes:
      raise _too_long(settings.body_bytes)


class _Body:
  """Receives a body within its limits."""

  def __init__(self, receive: Receive, most_bytes: int, most_seconds: float):
    self._receive, self._most_bytes, self._most_seconds = receive, most_bytes, most_seconds
    self._until = time.monotonic() + most_seconds
    self._n_bytes, self._is_whole = 0, False

  async def receive(self) -> Message:
    if self._is_whole:
      return await self._receive()
    try:
      message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
    except TimeoutError:
      seconds = self._most_seconds
      raise ApiError(408, f'the body did not arrive within {seconds:g} seconds', 'body_timeout') from None
    self._n_bytes += len(message.get('body', b''))
    self._is_whole = not message.get('more_body', False)
    if self._n_bytes > self._most_bytes:
      raise _too_long(self._most_bytes)
    return message


class Record:
  """Gives each response an id and safe headers, and each request a line of the log and a place in the metrics."""

  def __init__(self, app: ASGIApp, service: Service):
    """Puts the recorder before an application."""
    self._app, self._service = app, service

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    begun, number, status = time.perf_counter(), f'req_{secrets.token_hex(8)}', CLIENT_LEFT
    scope.setdefault('state', {})

    async def sent(message: Message) -> None:
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
        headers = MutableHeaders(scope=message)
        headers['X-Request-Id'] = number
        for name, value in _HEADERS.items():
          headers.setdefault(name, value)
        if self._service.is_ending:
          headers['Connection'] = 'close'
      await send(message)

    try:
      await self._app(scope, receive, sent)
    except Exception:
      status = 500
      self._service.log.logger.exception('%s failed', number)
      raise
    finally:
      route = getattr(scope.get('route'), 'path', 'none')
      self._service.metrics.count_request(route, status)
      self._service.log.logger.log(
        _level(route, status),
        '%s %s %.200s %d %.1f ms %s',
        number,
        scope['method'],
        scope['path'],
        status,
        1000 * (time.perf_counter() - begun),
        scope['state'].get('note', ''),
      )


def _level(route: str, status: int) -> int:
  """Returns the level of a line: checks of health are for debugging."""
  if status >= 500:
    return logging.WARNING
  return logging.DEBUG if route in ('/healthz', '/readyz', '/metrics') else logging.INFO


def _too_long(most_bytes: int) -> ApiError:
  return ApiError(413, f'the body is longer than {most_bytes:,} bytes; send a shorter text or file', 'body_too_long')
