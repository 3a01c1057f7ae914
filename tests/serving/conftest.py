"""An application without a model, and processes with one."""

import contextlib
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from terraformer.decode.decoder import Decoder
from terraformer.serving.http import make_app
from terraformer.serving.log import Log
from terraformer.serving.service import Service
from terraformer.serving.settings import Settings
from tests.serving.endless import write_endless
from tests.serving.scripted import BUNDLE, Scripted


@pytest.fixture
def make_client(tmp_path):
  """Returns make(scheduler, **settings) -> client of an application; `client.service` is its service."""
  with contextlib.ExitStack() as stack:

    def make(scheduler=None, **settings):
      log = Log('debug', tmp_path / 'log')
      stack.callback(log.close)
      service = Service(
        Settings(**{'name': 'small', 'tasks': ('summarize', 'fix'), 'body_seconds': 10_000} | settings),
        BUNDLE,
        scheduler or Scripted(),
        log,
      )
      service.is_ready = True
      client = stack.enter_context(TestClient(make_app(service), raise_server_exceptions=False))
      client.service = service
      return client

    yield make


@pytest.fixture
def client(make_client):
  return make_client()


class Process:
  """A server in a process of its own.

  Attributes:
    process: the process.
    url: its address.
  """

  def __init__(self, process):
    self.process = process
    line = process.stdout.readline()
    assert ' is at http' in line, process.stderr.read()
    self.url = line.split(' is at ')[1].split()[0]

  def get(self, path):
    """Status and text of a page."""
    try:
      with urllib.request.urlopen(self.url + path, timeout=200) as response:
        return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
      return error.code, error.read().decode()

  def post(self, path, **body):
    """Status and JSON of an answer."""
    headers = {'Content-Type': 'application/json'}
    request = urllib.request.Request(self.url + path, json.dumps(body).encode(), headers)
    try:
      with urllib.request.urlopen(request, timeout=200) as response:
        return response.status, json.load(response)
    except urllib.error.HTTPError as error:
      return error.code, json.load(error)

  def metric(self, name):
    """The value of a metric."""
    return next(float(line.split()[1]) for line in self.get('/metrics')[1].splitlines() if line.startswith(f'{name} '))

  def status(self, name):
    """A number that the kernel knows of the process, such as `VmRSS` in kB and `Threads`."""
    return int(re.search(rf'{name}:\s+(\d+)', Path(f'/proc/{self.process.pid}/status').read_text())[1])

  def wait_for(self, name, value):
    """Waits until a metric has this value."""
    until = time.monotonic() + 200
    while self.metric(name) != value:
      assert time.monotonic() < until, f'{name} is {self.metric(name)}, not {value}'
      time.sleep(0.02)


@pytest.fixture(scope='session')
def serve(terraformer, tmp_path_factory):
  """Returns start(*flags) -> Process that is ready; all are killed in the end."""
  processes = []

  def start(*flags, **options):
    # Nobody reads a pipe while the server runs; it would fill up.
    with (tmp_path_factory.mktemp('served') / 'log').open('w+') as log:
      served = Process(terraformer('serve', '--port=0', *flags, **({'stderr': log} | options)))
      served.log = log.name
    processes.append(served.process)
    until = time.monotonic() + 300
    while served.get('/readyz')[0] != 200:
      assert served.process.poll() is None and time.monotonic() < until
      time.sleep(0.05)
    return served

  yield start
  for process in processes:
    process.kill()
    process.communicate()


@pytest.fixture(scope='session')
def shipped(serve):
  """A server of the model that ships."""
  return serve('--max_concurrent=2')


@pytest.fixture(scope='session')
def decoder():
  """The model that ships, in this process."""
  return Decoder.open('technical_english')


@pytest.fixture(scope='session')
def endless_bundle(made_once, tokenizer):
  """A bundle whose texts take seconds."""
  return made_once('endless', lambda path: write_endless(path / 'endless', tokenizer)) / 'endless'


@pytest.fixture(scope='session')
def endless(serve, endless_bundle):
  """A server whose texts take seconds, for two at a time and two that wait; the disk of its log is full."""
  return serve(f'--bundle={endless_bundle}', '--max_concurrent=2', '--max_queue=2', '--log_file=/dev/full')
