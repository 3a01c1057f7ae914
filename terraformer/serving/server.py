"""The process: its socket, its signals, and how it ends."""

import errno
import logging
import os
import signal
import socket
import threading
import time

import uvicorn

from terraformer.config import UserError
from terraformer.serving.http import make_app
from terraformer.serving.service import Service

_LAST_SECONDS = 10  # for clients that do not receive what was written
_MOST_CONNECTIONS = 1000
# A terminal and the program between may both pass on one signal.
_SAME_SIGNAL_SECONDS = 1.0


def bind(host: str, port: int) -> socket.socket:
  """Returns a socket of this address, so that a taken port is known before the model is opened.

  Raises:
    UserError: if there is no such address, or the port is taken.
  """
  try:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind)
  except (OSError, UnicodeError) as error:
    raise UserError(f'--host: there is no address {host!r:.80} on this machine; use 127.0.0.1 or 0.0.0.0') from error
  try:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    bound.listen()
  except OSError as error:
    bound.close()
    if error.errno == errno.EADDRINUSE:
      raise UserError(f'port {port} of {host} is taken; choose another with --port, or 0 for any') from error
    if error.errno == errno.EACCES:
      raise UserError(f'port {port} needs the rights of an administrator; choose one above 1023 with --port') from error
    raise UserError(f'--host: cannot listen at {host!r:.80}: {os.strerror(error.errno or 0).lower()}') from error
  return bound


def address_of(bound: socket.socket) -> str:
  """Returns the URL of a socket."""
  host, port = bound.getsockname()[:2]
  return f'http://[{host}]:{port}' if bound.family == socket.AF_INET6 else f'http://{host}:{port}'


def serve(service: Service, bound: socket.socket) -> None:
  """Serves until a signal ends it: SIGTERM or Ctrl-C lets running texts end, and a second one cancels them.

  Raises:
    KeyboardInterrupt: after Ctrl-C.
  """

  # This program logs what happens to requests itself, and uvicorn's tracebacks of cancelled tasks help nobody.
  logging.getLogger('uvicorn.error').setLevel(logging.CRITICAL)
  config = uvicorn.Config(
    make_app(service),
    lifespan='off',
    access_log=False,
    log_config=None,
    server_header=False,
    ws='none',
    limit_concurrency=_MOST_CONNECTIONS,
    timeout_graceful_shutdown=_LAST_SECONDS,
  )
  server = _Server(config, service)
  service.log.logger.info('%s serves %s', address_of(bound), service.settings.name)
  threading.Thread(target=server.warm_up, daemon=True).start()
  try:
    server.run(sockets=[bound])
  finally:
    service.scheduler.close()
    service.log.logger.info('ended')
  if server.failure is not None:
    raise server.failure
  if server.was_interrupted:
    raise KeyboardInterrupt


class _Server(uvicorn.Server):
  """A server that refuses new requests while running texts end, instead of closing its port at once."""

  def __init__(self, config: uvicorn.Config, service: Service):
    super().__init__(config)
    self._service = service
    self._first_signal_at = 0.0
    self.was_interrupted = False
    self.failure: Exception | None = None

  def warm_up(self) -> None:
    """Compiles the model while health checks are answered; if it cannot be compiled, the server ends."""
    begun = time.monotonic()
    try:
      self._service.scheduler.warm_up()
    except Exception as error:
      self.failure, self.should_exit = error, True
      return
    self._service.is_ready = True
    self._service.log.logger.info('ready after %.1f s', time.monotonic() - begun)

  def handle_exit(self, sig: int, frame) -> None:
    self.was_interrupted |= sig == signal.SIGINT
    now = time.monotonic()
    if not self._service.is_ending:
      self._first_signal_at, self._service.is_ending = now, True
      threading.Thread(target=self._drain, daemon=True).start()
    elif now - self._first_signal_at > _SAME_SIGNAL_SECONDS:
      self.should_exit = self.force_exit = True

  def _drain(self) -> None:
    try:
      self._service.scheduler.drain(self._service.settings.seconds)
    finally:
      self.should_exit = True
