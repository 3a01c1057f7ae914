"""What every request passes: the key, limits, headers, the log and the metrics."""

import asyncio
import re

import pytest

from terraformer.serving.middleware import Gate
from tests.serving.scripted import Scripted

PATH = '/v1/completions'


def lines(tmp_path):
  return (tmp_path / 'log').read_text().splitlines()


@pytest.mark.parametrize('path', ['/v1/models', '/metrics'])
def test_with_a_key_only_those_who_have_it_are_answered(make_client, path):
  client = make_client(api_key='geheim')
  assert client.get(path, headers={'Authorization': 'Bearer geheim'}).status_code == 200
  for headers in ({}, {'Authorization': 'Bearer wrong'}, {'Authorization': 'Bearer \xe9'.encode()}):
    response = client.get(path, headers=headers)
    assert response.status_code == 401 and response.json()['error']['code'] == 'invalid_api_key'
  assert client.get('/').status_code == client.get('/healthz').status_code == 200


@pytest.mark.parametrize('is_chunked', [False, True])
@pytest.mark.parametrize('path', [PATH, '/v1/summaries'])
def test_a_body_that_is_too_long_is_refused(make_client, path, is_chunked):
  body = b'{"prompt": "' + b'a' * 2000 + b'"}'
  content = iter([body[:500], body[500:]]) if is_chunked else body
  response = make_client(body_bytes=1000).post(path, content=content, headers={'Content-Type': 'application/json'})
  assert response.status_code == 413 and response.json()['error']['code'] == 'body_too_long'


def test_a_body_that_does_not_arrive_is_given_up(make_client):
  client, answers = make_client(body_seconds=0.05), []

  async def answer():
    scope = {'type': 'http', 'method': 'POST', 'path': PATH, 'headers': [(b'content-type', b'application/json')]}

    async def send(message):
      answers.append(message)

    await Gate(client.app, client.service)(scope | {'query_string': b'', 'state': {}}, asyncio.Event().wait, send)

  asyncio.run(answer())
  assert answers[0]['status'] == 408 and b'did not arrive within 0.05 seconds' in answers[1]['body']


def test_the_log_has_no_text_of_users_unless_asked_for(make_client, tmp_path):
  for logs_text in (False, True):
    client = make_client(logs_text=logs_text)
    client.post(PATH, json={'prompt': 'geheim one'})
    client.post(PATH, json={'prompt': 'geheim two', 'tools': ['geheim']})
    client.post('/v1/summaries', files={'file': ('geheim.txt', b'\x00geheim')})
    client.post(PATH, json={'prompt': 'broken', 'user': 'geheim'})
    assert ('geheim' in (tmp_path / 'log').read_text()) == logs_text


def test_each_request_has_a_line_with_the_id_of_its_response(client, tmp_path):
  response = client.post(PATH, json={'prompt': 'red tree'})
  number = response.headers['X-Request-Id']
  assert re.fullmatch(rf'\S+ INFO {number} POST /v1/completions 200 [0-9.]+ ms 2\+2 tokens', lines(tmp_path)[-1])


def test_a_path_cannot_break_a_line_of_the_log(client, tmp_path):
  client.get('/%0aERROR%20forged' + 'x' * 1000)
  assert len(lines(tmp_path)) == 1 and len(lines(tmp_path)[0]) < 400


def test_metrics_count_requests_texts_and_tokens(client):
  client.post(PATH, json={'prompt': 'red tree'})
  client.post(PATH, json={'prompt': 'broken'})
  client.get('/nowhere/else')
  text = client.get('/metrics').text
  for line in (
    'terraformer_requests_total{route="/v1/completions",status="200"} 1.0',
    'terraformer_requests_total{route="/v1/completions",status="503"} 1.0',
    'terraformer_requests_total{route="none",status="404"} 1.0',
    'terraformer_texts_total{reason="stop"} 1.0',
    'terraformer_texts_total{reason="failed"} 1.0',
    'terraformer_tokens_total{kind="written"} 2.0',
    'terraformer_tokens_total{kind="dropped"} 2.0',
    'terraformer_time_to_first_token_seconds_sum 0.25',
    'terraformer_time_per_token_seconds_sum 0.25',
    'terraformer_longest_stall_seconds 0.5',
    'terraformer_running 0.0',
    'terraformer_queued 0.0',
  ):
    assert f'{line}\n' in text


def test_a_server_that_is_not_ready_or_ends_says_so(client):
  assert client.get('/readyz').json() == {'status': 'ready'}
  for name, code in (('is_ready', 'not_ready'), ('is_ending', 'shutting_down')):
    setattr(client.service, name, name == 'is_ending')
    for response in (client.get('/readyz'), client.post(PATH, json={'prompt': 'a'})):
      assert response.status_code == 503 and response.json()['error']['code'] == code
      assert int(response.headers['Retry-After']) >= 1
  assert client.get('/healthz').status_code == 200


def test_an_error_of_this_program_is_logged_and_said_without_details(make_client, tmp_path):
  scheduler = Scripted()
  scheduler.submit = lambda *_: 1 / 0
  response = make_client(scheduler).post(PATH, json={'prompt': 'a'})
  assert response.status_code == 500 and 'ZeroDivisionError' not in response.text
  assert response.json()['error']['type'] == 'server_error'
  assert 'ZeroDivisionError' in (tmp_path / 'log').read_text()


@pytest.mark.parametrize('stream', [False, True])
def test_a_client_that_leaves_cancels_its_texts(make_client, stream):
  scheduler = Scripted()
  client, answers = make_client(scheduler), []

  async def leave():
    body = b'{"prompt": ["endless", "endless words"], "stream": %s}' % str(stream).lower().encode()
    messages = [{'type': 'http.request', 'body': body}]

    async def receive():
      if messages:
        return messages.pop()
      while len(scheduler.running) < 2:
        await asyncio.sleep(0.01)
      return {'type': 'http.disconnect'}

    async def send(message):
      answers.append(message)

    headers = [(b'content-type', b'application/json')]
    scope = {'type': 'http', 'method': 'POST', 'path': PATH, 'headers': headers, 'query_string': b''}
    await client.app(scope, receive, send)

  asyncio.run(asyncio.wait_for(leave(), 20))
  assert scheduler.running == [] and scheduler.n_cancelled == 2
