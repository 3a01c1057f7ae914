"""The OpenAI client against a real process."""

import openai
import pytest

from terraformer.config import DecodeConfig

TEXTS = ['teh libary reads fiels', 'A tool that converts images between formats.', 'Returns the the number of elments.']


@pytest.fixture(scope='module')
def client(shipped):
  with openai.OpenAI(base_url=f'{shipped.url}/v1', api_key='none', max_retries=0) as client:
    yield client


@pytest.fixture(scope='module')
def slow_client(endless):
  with openai.OpenAI(base_url=f'{endless.url}/v1', api_key='none', max_retries=0) as client:
    yield client


def alone(decoder, prompt, **settings):
  return ''.join(decoder.generate(prompt, DecodeConfig(**settings)))


def test_completions_of_several_prompts_are_those_of_each_alone(client, decoder):
  prompts = [f'{task}: {text}' for task in ('fix', 'summarize') for text in TEXTS]
  done = client.completions.create(model='technical_english', prompt=prompts)
  assert [choice.text for choice in done.choices] == [alone(decoder, prompt) for prompt in prompts]
  assert {choice.finish_reason for choice in done.choices} == {'stop'}
  assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_samples_are_repeated_by_their_seeds(client, decoder):
  settings = {'temperature': 0.8, 'top_p': 0.9, 'seed': 7, 'max_tokens': 20}
  done = client.completions.create(model='technical_english', prompt='fix: teh libary', n=2, **settings)
  expected = [alone(decoder, 'fix: teh libary', **(settings | {'seed': seed})) for seed in (7, 8)]
  assert [choice.text for choice in done.choices] == expected


def test_a_chat_is_answered_and_a_stop_string_ends_it(client, decoder):
  text = alone(decoder, f'fix: {TEXTS[0]}')
  stop = text[len(text) // 2 :][:3]
  messages = [{'role': 'user', 'content': TEXTS[0]}]
  done = client.chat.completions.create(
    model='technical_english', messages=messages, stop=stop, extra_body={'task': 'fix'}
  )
  assert done.choices[0].message.content == text[: text.index(stop)]
  assert done.choices[0].finish_reason == 'stop'


def test_streams_are_the_same_text(client, decoder):
  prompt = f'summarize: {TEXTS[1]}'
  chunks = client.completions.create(model='technical_english', prompt=prompt, stream=True)
  assert ''.join(chunk.choices[0].text for chunk in chunks) == alone(decoder, prompt)
  chunks = client.chat.completions.create(
    model='technical_english',
    messages=[{'role': 'user', 'content': prompt}],
    stream=True,
    max_tokens=4,
    stream_options={'include_usage': True},
  )
  *pieces, last = chunks
  text = ''.join(chunk.choices[0].delta.content or '' for chunk in pieces)
  assert text == alone(decoder, prompt, max_tokens=4)
  assert pieces[-1].choices[0].finish_reason == 'length' and last.usage.completion_tokens == 4


def test_models_are_listed(client):
  assert [model.id for model in client.models.list()] == ['technical_english']
  assert client.models.retrieve('technical_english').owned_by == 'terraformer'


@pytest.mark.parametrize(
  ('settings', 'kind', 'words'),
  [
    ({'logprobs': 5}, openai.BadRequestError, 'logprobs: this model does not support it'),
    ({'temperature': 3}, openai.BadRequestError, 'temperature'),
    ({'prompt': ''}, openai.BadRequestError, 'the text is empty'),
    ({'model': 'gpt'}, openai.NotFoundError, "there is no model 'gpt'"),
  ],
)
def test_a_bad_request_is_an_error_of_the_usual_class(client, settings, kind, words):
  with pytest.raises(kind, match=words) as error:
    client.completions.create(**({'model': 'technical_english', 'prompt': 'a'} | settings))
  assert error.value.request_id.startswith('req_')


def test_a_stream_that_the_client_closes_frees_its_row(slow_client, endless):
  stream = slow_client.completions.create(model='endless', prompt='Red tree.', stream=True)
  assert next(iter(stream)).choices[0].text is not None
  assert endless.metric('terraformer_running') == 1
  stream.close()
  endless.wait_for('terraformer_running', 0)


def test_a_request_that_the_client_gives_up_frees_its_row(slow_client, endless):
  with pytest.raises(openai.APITimeoutError):
    slow_client.completions.create(model='endless', prompt='Red tree.', timeout=0.3)
  endless.wait_for('terraformer_running', 0)


def test_beyond_the_queue_the_client_gets_a_rate_limit_and_when_to_try_again(slow_client, endless):
  settings = {'model': 'endless', 'prompt': ['Red tree.', 'Blue hill.'], 'stream': True}
  streams = [slow_client.completions.create(**settings) for _ in range(2)]  # two run, two wait
  try:
    with pytest.raises(openai.RateLimitError) as error:
      slow_client.completions.create(model='endless', prompt='Old road.')
    assert int(error.value.response.headers['Retry-After']) >= 1
  finally:
    for stream in streams:
      stream.close()
  endless.wait_for('terraformer_running', 0)
  endless.wait_for('terraformer_queued', 0)
