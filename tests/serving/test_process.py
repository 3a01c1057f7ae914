"""How the process of a server begins and ends."""

import http.client
import json
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.serving.endless import write_endless


def stream(served, **body):
  """Begins a stream, and returns the response after its first event."""
  connection = http.client.HTTPConnection(served.url.removeprefix('http://'), timeout=120)
  body = json.dumps({'prompt': 'Red tree.', 'stream': True} | body)
  connection.request('POST', '/v1/completions', body, {'Content-Type': 'application/json'})
  response = connection.getresponse()
  assert response.status == 200 and response.readline().startswith(b'data: {')
  return response


def text_of(served, n=20):
  return served.post('/v1/completions', prompt='Red tree.', max_tokens=n)[1]['choices'][0]['text']


def test_a_replaced_bundle_is_taken_by_the_next_process_and_a_kill_leaves_nothing_behind(
  serve, endless_bundle, tokenizer, tmp_path
):
  path = shutil.copytree(endless_bundle, tmp_path / 'endless')
  served = serve(f'--bundle={path}', '--max_concurrent=2')
  before = text_of(served)
  write_endless(path, tokenizer, seed=1)
  assert text_of(served) == before
  streams = [stream(served) for _ in range(2)]
  served.process.send_signal(signal.SIGKILL)
  for response in streams:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
      response.read()
  port = served.url.rpartition(':')[2]
  again = serve(f'--bundle={path}', '--max_concurrent=2', f'--port={port}')
  assert again.url == served.url and text_of(again) != before
  ends_by_sigterm(again)


def ends_by_sigterm(served):
  """Running texts end and new requests are refused; then the process ends with status 0."""
  response, whole = stream(served, max_tokens=6000), []
  reading = threading.Thread(target=lambda: whole.append(response.read().decode()))
  reading.start()
  served.process.send_signal(signal.SIGTERM)
  while (status := served.get('/readyz')[0]) == 200:
    pass
  refused, error = served.post('/v1/completions', prompt='a')
  assert (status, refused, error['error']['code']) == (503, 503, 'shutting_down')
  assert served.get('/healthz')[0] == 200
  reading.join(120)
  *_, last, done, rest = whole[0].split('\n\n')
  assert (done, rest) == ('data: [DONE]', '')
  assert json.loads(last.removeprefix('data: '))['choices'][0]['finish_reason'] == 'length'
  assert served.process.wait(60) == 0


def test_a_full_disk_for_the_log_is_said_once_and_serving_goes_on(endless):
  for _ in range(3):
    assert endless.post('/v1/completions', prompt='Red tree.', max_tokens=5)[0] == 200
  assert endless.metric('terraformer_lost_log_lines') > 3
  said = Path(endless.log).read_text()
  assert said == 'terraformer serve: cannot write to /dev/full: no space left on device; serving goes on\n'


def test_a_slow_pdf_reader_is_not_the_server(shipped):
  rng = np.random.default_rng(0)
  garbage = b'%PDF-1.7\n' + rng.integers(0, 256, 100_000, np.uint8).tobytes()
  edge = 'edge'
  body = (
    f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
    + garbage
    + f'\r\n--{edge}--\r\n'.encode()
  )
  connection = http.client.HTTPConnection(shipped.url.removeprefix('http://'), timeout=60)
  connection.request('POST', '/v1/summaries', body, {'Content-Type': f'multipart/form-data; boundary={edge}'})
  response = connection.getresponse()
  assert (response.status, json.load(response)['error']['code']) == (400, 'unreadable_file')
