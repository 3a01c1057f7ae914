"""Many clients at once, of which some leave and some are wrong: every other one gets the text that it gets alone."""

import concurrent.futures
import http.client
import json
import random

import pytest

from terraformer.config import DecodeConfig

WORDS = [
  *('a', 'library', 'for', 'reading', 'and', 'writing', 'audio', 'files', 'in', 'many', 'formats'),
  *('that', 'converts', 'teh', 'imges', 'of', 'web', 'pages'),
]
HEADERS = {'Content-Type': 'application/json'}


def requests_of(count):
  """(kind, body) of each request: a fifth leave half-way, a tenth are malformed."""
  rng = random.Random(0)
  kinds = ['leaves', 'leaves', 'malformed', 'stream', 'stream', 'stream', 'whole', 'whole', 'whole', 'whole']
  for number in range(count):
    prompt = f'{rng.choice(["fix", "summarize"])}: ' + ' '.join(rng.choices(WORDS, k=rng.randrange(3, 60)))
    body = {'prompt': prompt, 'max_tokens': rng.randrange(5, 100)}
    if rng.random() < 0.5:
      body |= {'temperature': 0.8, 'seed': number, 'top_p': 0.9}
    kind = kinds[number % 10]
    yield kind, body | {'stream': kind in ('stream', 'leaves')}


def send(served, kind, body):
  """The text of a request; None if it leaves or is malformed."""
  connection = http.client.HTTPConnection(served.url.removeprefix('http://'), timeout=200)
  data = json.dumps(body)
  connection.request('POST', '/v1/completions', data[: len(data) // 2] if kind == 'malformed' else data, HEADERS)
  response = connection.getresponse()
  assert response.status == (400 if kind == 'malformed' else 200)
  if kind == 'leaves':
    response.readline()
    connection.sock.close()
    response.close()
    return None
  text = response.read().decode()
  connection.close()
  if kind == 'malformed':
    return None
  if kind == 'whole':
    return json.loads(text)['choices'][0]['text']
  *events, done, _ = text.split('\n\n')
  assert done == 'data: [DONE]'
  return ''.join(json.loads(each.removeprefix('data: '))['choices'][0]['text'] for each in events)


def alone(decoder, body):
  settings = {name: value for name, value in body.items() if name not in ('prompt', 'stream')}
  return ''.join(decoder.generate(body['prompt'], DecodeConfig(**settings)))


def run(served, decoder, count, clients):
  requests = list(requests_of(count))
  with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    texts = list(pool.map(lambda request: send(served, *request), requests))
  wrong = [
    (body, text, expected)
    for (_, body), text in zip(requests, texts, strict=True)
    if text is not None and text != (expected := alone(decoder, body))
  ]
  assert wrong == []
  for name in ('running', 'reading', 'queued'):
    served.wait_for(f'terraformer_{name}', 0)


def test_a_few_clients_at_once_get_their_own_texts(shipped, decoder):
  run(shipped, decoder, count=30, clients=10)


@pytest.mark.slow
def test_fifty_clients_at_once_leave_a_process_as_it_was(serve, decoder):
  served = serve('--max_concurrent=8')
  run(served, decoder, count=50, clients=50)
  memory, threads = served.status('VmRSS'), served.status('Threads')
  for _ in range(3):
    run(served, decoder, count=200, clients=50)
  assert served.status('Threads') <= threads
  print(f'{memory / 1000:.0f} MB before, {served.status("VmRSS") / 1000:.0f} MB after')
  assert served.status('VmRSS') < memory + 50_000
