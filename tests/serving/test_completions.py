"""Completions and chats have the shapes of the OpenAI API, and what the model has not is refused by name."""

import json

import pytest

from terraformer.serving.bodies import _UNSUPPORTED, MOST_CHOICES
from tests.serving.scripted import Scripted

COMPLETIONS, CHAT = '/v1/completions', '/v1/chat/completions'
USER = {'role': 'user', 'content': 'red tree river'}


def sent(response):
  """The events of a stream."""
  assert response.headers['content-type'].startswith('text/event-stream')
  *events, done, rest = response.text.split('\n\n')
  assert (done, rest) == ('data: [DONE]', '')
  return [json.loads(each.removeprefix('data: ')) for each in events]


def refusal(client, path, body):
  response = client.post(path, content=json.dumps(body), headers={'Content-Type': 'application/json'})
  error = response.json()['error']
  assert error.keys() == {'message', 'type', 'param', 'code'} and error['message'].isprintable()
  return response.status_code, error


def test_a_completion_has_text_reason_and_counts(client):
  body = client.post(COMPLETIONS, json={'prompt': 'red tree river', 'model': 'small'}).json()
  assert body['choices'] == [{'index': 0, 'text': 'red tree river', 'logprobs': None, 'finish_reason': 'stop'}]
  assert body['usage'] == {'prompt_tokens': 3, 'completion_tokens': 3, 'total_tokens': 6, 'dropped_tokens': 2}
  assert (body['object'], body['model']) == ('text_completion', 'small') and body['id'].startswith('cmpl-')


def test_each_of_several_prompts_has_n_texts_in_order_and_counts_once(client):
  body = client.post(COMPLETIONS, json={'prompt': ['a b', 'c'], 'n': 2, 'max_tokens': 1}).json()
  found = [(each['index'], each['text'], each['finish_reason']) for each in body['choices']]
  assert found == [(0, 'a', 'length'), (1, 'a', 'length'), (2, 'c', 'stop'), (3, 'c', 'stop')]
  assert body['usage']['prompt_tokens'] == 3 and body['usage']['completion_tokens'] == 4


def test_settings_reach_the_scheduler(make_client):
  scheduler = Scripted()
  settings = {'max_tokens': 5, 'temperature': 1, 'top_p': 0.5, 'top_k': 3, 'seed': 2**32 - 1, 'stop': ['x', 'y']}
  client = make_client(scheduler, cache_dtype='int8')
  client.post(COMPLETIONS, json={'prompt': 'a', 'n': 2, 'no_repeat_ngram': 4, **settings})
  first, second = scheduler.configs
  assert (first.max_tokens, first.temperature, first.top_p, first.top_k, first.no_repeat_ngram) == (5, 1.0, 0.5, 3, 4)
  assert (first.stop, first.cache_dtype) == (('x', 'y'), 'int8')
  assert (first.seed, second.seed) == (2**32 - 1, 0)


def test_without_a_seed_samples_differ(make_client):
  scheduler = Scripted()
  client = make_client(scheduler)
  for _ in range(2):
    client.post(COMPLETIONS, json={'prompt': 'a', 'temperature': 1})
  assert scheduler.configs[0].seed != scheduler.configs[1].seed


def test_a_task_goes_before_the_prompt(make_client):
  scheduler = Scripted()
  client = make_client(scheduler)
  client.post(COMPLETIONS, json={'prompt': 'teh text', 'task': 'fix'})
  client.post(CHAT, json={'messages': [USER]})
  assert scheduler.prompts == ['fix: teh text', 'red tree river']


def test_a_stream_of_completions_is_the_same_text_in_chunks(client):
  body = {'prompt': ['red tree', 'blue'], 'stream': True, 'stream_options': {'include_usage': True}}
  *chunks, last = sent(client.post(COMPLETIONS, json=body))
  texts, reasons = ['', ''], {}
  for chunk in chunks:
    (choice,) = chunk['choices']
    texts[choice['index']] += choice['text']
    if choice['finish_reason']:
      reasons[choice['index']] = choice['finish_reason']
    assert chunk['usage'] is None
  assert texts == ['red tree', 'blue'] and reasons == {0: 'stop', 1: 'stop'}
  assert last['choices'] == [] and last['usage']['total_tokens'] == 6


def test_a_chat_answers_the_last_message_of_the_user(client):
  parts = [{'type': 'text', 'text': 'last '}, {'type': 'text', 'text': 'words'}]
  messages = [{'role': 'system', 'content': 'x'}, USER, {'role': 'user', 'content': parts}]
  messages.append({'role': 'assistant', 'content': 'y'})
  body = client.post(CHAT, json={'messages': messages}).json()
  assert body['choices'][0]['message'] == {'role': 'assistant', 'content': 'last words', 'refusal': None}
  assert body['object'] == 'chat.completion'


def test_a_stream_of_a_chat_begins_with_the_role_and_has_no_counts_unless_asked(client):
  first, *others = sent(client.post(CHAT, json={'messages': [USER], 'stream': True, 'max_completion_tokens': 2}))
  assert first['choices'][0]['delta'] == {'role': 'assistant', 'content': ''}
  assert ''.join(each['choices'][0]['delta'].get('content', '') for each in others) == 'red tree'
  assert others[-1]['choices'][0]['finish_reason'] == 'length' and 'usage' not in first


@pytest.mark.parametrize('name', _UNSUPPORTED)
@pytest.mark.parametrize(('path', 'body'), [(COMPLETIONS, {'prompt': 'a'}), (CHAT, {'messages': [USER]})])
def test_what_the_model_has_not_is_refused_by_name_and_taken_where_it_asks_for_nothing(client, name, path, body):
  status, error = refusal(client, path, body | {name: 5})
  assert (status, error['param'], error['code']) == (400, name, 'unsupported_parameter')
  assert error['message'] == f'{name}: this model does not support it; leave it out'
  for idle in (None, *_UNSUPPORTED[name]):
    assert client.post(path, json=body | {name: idle}).status_code == 200


@pytest.mark.parametrize(
  ('fields', 'param', 'words'),
  [
    ({'max_token': 3}, 'max_token', "there is no parameter 'max_token'; did you mean max_tokens?"),
    ({'\nweird': 3}, '\\nweird', 'there is no parameter'),
    ({'temperature': '1'}, 'temperature', 'should be a valid number'),
    ({'temperature': True}, 'temperature', 'should be a valid number'),
    ({'temperature': 2.1}, 'temperature', 'less than or equal to 2'),
    ({'top_p': 0}, 'top_p', 'greater than 0'),
    ({'max_tokens': 0}, 'max_tokens', 'greater than or equal to 1'),
    ({'max_tokens': 10**30}, 'max_tokens', 'less than or equal to'),
    ({'seed': -1}, 'seed', 'greater than or equal to 0'),
    ({'n': MOST_CHOICES + 1}, 'n', f'less than or equal to {MOST_CHOICES}'),
    ({'stop': ['a', '']}, 'stop', 'strings of 1 to 1000 characters'),
    ({'stop': ['a'] * 17}, 'stop', 'at most 16 strings, found 17'),
    ({'stop': ['a', 3]}, 'stop.1', 'should be a valid string'),
    ({'prompt': []}, 'prompt', f'expected 1 to {MOST_CHOICES} prompts, found 0'),
    ({'prompt': [1, 2]}, 'prompt.0', 'should be a valid string'),
    ({'prompt': None}, 'prompt', 'should be a valid'),
    ({'prompt': ' '}, None, 'the text is empty'),
    ({'prompt': 'a\ud800'}, None, 'lone surrogate'),
    ({'prompt': 'refused'}, None, 'the prompt is refused'),
    ({'task': 'fixx'}, 'task', "unknown task 'fixx'; did you mean fix?"),
    ({'stream_options': {}}, 'stream_options', 'only with stream=true'),
    ({'stream_options': {'x': 1}, 'stream': True}, 'stream_options.x', 'there is no parameter'),
  ],
)
def test_a_wrong_parameter_is_named(client, fields, param, words):
  status, error = refusal(client, COMPLETIONS, {'prompt': 'a'} | fields)
  assert status == 400 and error['type'] == 'invalid_request_error'
  assert error['param'] == param and words in error['message']


@pytest.mark.parametrize(
  ('messages', 'words'),
  [
    ([], "expected a message with the role 'user', found none"),
    ([{'role': 'assistant', 'content': 'x'}], "expected a message with the role 'user'"),
    ([{'role': 'tool', 'content': 'x'}], "should be 'system', 'developer', 'user' or 'assistant'"),
    ([{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': 'x'}}]}], "should be 'text'"),
    ([USER | {'content': None}], 'the text is empty'),
    ('x', 'should be a valid list'),
  ],
)
def test_wrong_messages_are_named(client, messages, words):
  status, error = refusal(client, CHAT, {'messages': messages})
  assert status == 400 and words in error['message']


@pytest.mark.parametrize('body', [b'', b'{', b'[' * 100_000, b'\xff', b'"' + b'9' * 5000, b'9' * 5000, b'[]', b'null'])
def test_a_body_that_is_no_object_is_refused(client, body):
  response = client.post(COMPLETIONS, content=body, headers={'Content-Type': 'application/json'})
  assert response.status_code == 400 and response.json()['error']['message'].startswith('the body')


def test_another_model_is_not_found(client):
  status, error = refusal(client, COMPLETIONS, {'prompt': 'a', 'model': 'gpt'})
  assert (status, error['code'], error['param']) == (404, 'model_not_found', 'model')
  assert "'gpt'; this server has small" in error['message']


def test_a_limit_of_tokens_is_the_default_and_the_most(make_client):
  scheduler = Scripted()
  client = make_client(scheduler, max_tokens=2)
  assert client.post(COMPLETIONS, json={'prompt': 'a b c'}).json()['choices'][0]['text'] == 'a b'
  status, error = refusal(client, COMPLETIONS, {'prompt': 'a', 'max_tokens': 3})
  assert status == 400 and error['message'] == 'max_tokens: expected at most 2, found 3'


def test_a_full_queue_says_when_to_try_again_and_leaves_nothing_behind(make_client):
  scheduler = Scripted(places=2)
  response = make_client(scheduler).post(COMPLETIONS, json={'prompt': ['endless', 'endless', 'endless']})
  assert response.status_code == 429 and response.headers['Retry-After'] == '7'
  assert response.json()['error']['type'] == 'rate_limit_error'
  assert scheduler.running == [] and scheduler.n_cancelled == 2


def test_an_error_of_the_engine_is_told_in_words(client):
  status, error = refusal(client, COMPLETIONS, {'prompt': 'broken'})
  assert (status, error['message'], error['code']) == (503, 'it broke', 'failed')
  response = client.post(COMPLETIONS, json={'prompt': 'broken', 'stream': True})
  assert json.loads(response.text.removeprefix('data: '))['error']['message'] == 'it broke'


def test_when_the_time_is_up_a_text_ends_as_it_is(make_client):
  scheduler = Scripted()
  body = make_client(scheduler, seconds=0.2).post(COMPLETIONS, json={'prompt': 'endless'}).json()
  assert (body['choices'][0]['text'], body['choices'][0]['finish_reason']) == ('on and on', 'length')
  assert scheduler.running == []


def test_a_server_that_ends_refuses_texts(client):
  client.service.scheduler.is_closed = True
  assert refusal(client, COMPLETIONS, {'prompt': 'a'})[0] == 503
