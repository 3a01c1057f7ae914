"""The page, the model, the API's description."""

import base64
import hashlib
import re

import fastapi_offline


def test_the_page_runs_its_own_script_and_loads_nothing_else(client):
  response = client.get('/')
  script = re.search('<script>(.*?)</script>', response.text, re.DOTALL)[1]
  own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  policy = response.headers['Content-Security-Policy']
  assert f"script-src 'sha256-{own}'" in policy and "default-src 'none'" in policy and "connect-src 'self'" in policy
  assert not re.search(r'(src|href)="(https?:)?//', response.text) and 'style=' not in response.text


def test_the_model_says_what_it_does(client):
  (model,) = client.get('/v1/models').json()['data']
  assert model == client.get('/v1/models/small').json()
  assert (model['id'], model['tasks'], model['reads']) == ('small', ['summarize', 'fix'], 'source')
  assert (model['max_input_tokens'], model['max_tokens']) == (256, 144)
  assert client.get('/v1/models/other').status_code == 404


def test_the_description_has_every_route_and_the_statuses_that_there_are(client):
  paths = client.get('/openapi.json').json()['paths']
  assert {*paths} == {
    '/v1/completions', '/v1/chat/completions', '/v1/summaries', '/v1/models', '/v1/models/{name}',
    '/healthz', '/readyz', '/metrics',
  }  # fmt: skip
  for operations in paths.values():
    for operation in operations.values():
      assert operation['responses'].keys() >= {'200', '400', '503'} and '422' not in operation['responses']


def test_the_page_of_the_description_loads_nothing_from_elsewhere(client):
  text = client.get('/docs').text
  addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
  assert addresses and all(address.startswith('/docs-assets/') for address in addresses)
  assert all(client.get(address).status_code == 200 for address in addresses), fastapi_offline.__file__


def test_an_unknown_address_and_a_wrong_method_are_said_in_the_usual_shape(client):
  assert client.get('/v2/x').json()['error']['type'] == 'not_found_error'
  response = client.get('/v1/completions')
  assert response.status_code == 405 and response.headers['Allow'] == 'POST'
