"""Whatever the body of a request is, there is an answer in the usual shape, and no status of 500 and more but 503."""

import copy
import http.client
import json
import random

import pytest

from tests.serving.pdfs import pdf
from tests.serving.scripted import Scripted

SAMPLING = {
  'model': 'technical_english', 'max_tokens': 3, 'temperature': 0.5, 'top_p': 0.9, 'top_k': 5, 'seed': 1,
  'stop': ['x', 'yy'], 'no_repeat_ngram': 3, 'task': 'fix', 'stream': False, 'user': 'me', 'metadata': {'a': 'b'},
}  # fmt: skip
MESSAGES = [{'role': 'system', 'content': 'x'}, {'role': 'user', 'content': [{'type': 'text', 'text': 'red tree'}]}]
BODIES = {
  '/v1/completions': SAMPLING | {'prompt': ['red tree', 'blue'], 'n': 1, 'logprobs': None, 'echo': False},
  '/v1/chat/completions': SAMPLING
  | {'messages': MESSAGES, 'n': 1, 'tools': [], 'max_completion_tokens': 3, 'response_format': {'type': 'text'}},
  '/v1/summaries': SAMPLING | {'text': 'red tree river'},
}
ODDITIES = [
  None, True, False, 0, 1, -1, 2**31, 2**32, 2**63, 10**400, 0.5, -0.0, 1e308, float('nan'), float('inf'), '', ' ', 'x',
  '\0', '\ud800', 'a\n\r\t', '\u202e\u0301', '1', 'x' * 5000, [], [[]], ['x'] * 40, [None], {}, {'a': {}},
  {'\ud800': 1},
]  # fmt: skip
TYPES = [
  'application/json',
  'application/json',
  'text/plain',
  'application/x-www-form-urlencoded',
  '',
  'x',
  'multipart/x',
]
EDGE = 'edge'


def places(value, path=()):
  """The path of every value inside a JSON value."""
  yield path
  items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
  for key, each in items:
    yield from places(each, (*path, key))


def changed(rng, body):
  """A JSON value with something else in one place."""
  body = copy.deepcopy(body)
  path = rng.choice(list(places(body))[1:] or [()])
  if not path:
    return rng.choice(ODDITIES)
  holder = body
  for key in path[:-1]:
    holder = holder[key]
  kind = rng.randrange(5)
  if kind == 0:
    del holder[path[-1]]
  elif kind == 1 and isinstance(holder, dict):
    holder[rng.choice([f'{path[-1]}s', path[-1].upper(), '', '\ud800', 'x' * 3000])] = holder.pop(path[-1])
  else:
    holder[path[-1]] = rng.choice(ODDITIES)
  return body


def damaged(rng, data):
  """The bytes with a few of them changed, removed, repeated or cut off."""
  data = bytearray(data)
  for _ in range(rng.randrange(1, 4)):
    at = rng.randrange(len(data)) if data else 0
    kind = rng.randrange(4)
    if kind == 0:
      data[at : at + 1] = bytes([rng.randrange(256)])
    elif kind == 1:
      del data[at : at + rng.randrange(1, 20)]
    elif kind == 2:
      data[at:at] = data[at : at + 10] * rng.randrange(1, 50)
    else:
      del data[at:]
  return bytes(data)


def form(rng):
  """A form with a file."""
  content = rng.choice([b'red tree', b'', b'\0\1', bytes(range(256)), 'red'.encode('utf-16'), b'red ' * 500])
  if rng.random() < 0.02:
    content = damaged(rng, pdf('Red tree river.'))
  parts = [('file"; filename="a.txt', content)]
  parts += [(name, str(value).encode()) for name, value in SAMPLING.items() if rng.random() < 0.2]
  parts += [(rng.choice(list(SAMPLING)), repr(rng.choice(ODDITIES)).encode('utf-8', 'replace'))]
  rng.shuffle(parts)
  head = f'--{EDGE}\r\nContent-Disposition: form-data; name="'.encode()
  return b''.join(head + name.encode() + b'"\r\n\r\n' + each + b'\r\n' for name, each in parts) + f'--{EDGE}--'.encode()


def mutated(seed):
  """Path, content type and body of a request."""
  rng = random.Random(seed)
  if rng.random() < 0.2:
    data = form(rng)
    return '/v1/summaries', f'multipart/form-data; boundary={EDGE}', damaged(rng, data) if rng.random() < 0.5 else data
  path = rng.choice(list(BODIES))
  body = changed(rng, BODIES[path])
  if rng.random() < 0.3:
    body = changed(rng, body)
  data = json.dumps(body).encode()
  return path, rng.choice(TYPES) if rng.random() < 0.1 else TYPES[0], damaged(rng, data) if rng.random() < 0.3 else data


def check(seed, status, kind, text):
  assert status < 500 or status == 503, (seed, text)
  if status != 200:
    error = json.loads(text)['error']
    assert error.keys() == {'message', 'type', 'param', 'code'}, seed
    assert 0 < len(error['message']) <= 500 and error['message'].isprintable(), seed
  else:
    assert kind.startswith(('application/json', 'text/event-stream')), seed


def test_mutated_bodies_get_an_answer(make_client):
  scheduler = Scripted()
  client, statuses = make_client(scheduler, name='technical_english', seconds=1), set()
  for seed in range(300):
    path, kind, data = mutated(seed)
    response = client.post(path, content=data, headers={'Content-Type': kind})
    check(seed, response.status_code, response.headers['content-type'], response.text)
    statuses.add(response.status_code)
  assert statuses >= {200, 400, 415} and scheduler.running == []


@pytest.mark.slow
def test_ten_thousand_mutated_bodies_leave_a_process_as_it_was(shipped):
  address = shipped.url.removeprefix('http://')
  counts, before, threads = {}, 0, 0
  for seed in range(10_000):
    if seed == 1000:  # everything has been used once
      before, threads = shipped.status('VmRSS'), shipped.status('Threads')
    path, kind, data = mutated(seed)
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request('POST', path, data, {'Content-Type': kind})
    response = connection.getresponse()
    check(seed, response.status, response.getheader('content-type'), response.read())
    connection.close()
    counts[response.status] = counts.get(response.status, 0) + 1
  after = shipped.status('VmRSS')
  print(counts, f'{before / 1000:.0f} MB before, {after / 1000:.0f} MB after')
  assert after < before + 50_000
  assert shipped.status('Threads') <= threads + 2
  assert shipped.metric('terraformer_running') == shipped.metric('terraformer_queued') == 0
