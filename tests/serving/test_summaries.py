"""Summaries of texts and of uploaded files."""

import io
import json

import pypdf
import pytest

from tests.serving.pdfs import pdf
from tests.serving.scripted import Scripted

PATH = '/v1/summaries'


def upload(client, data, name='a.bin', **fields):
  return client.post(PATH, files={'file': (name, data)}, data=fields)


def test_a_summary_has_text_counts_and_times_and_the_usual_task(make_client):
  scheduler = Scripted()
  body = make_client(scheduler).post(PATH, json={'text': 'red tree'}).json()
  assert scheduler.prompts == ['summarize: red tree']
  assert (body['summary'], body['finish_reason'], body['object']) == ('summarize: red tree', 'stop', 'summary')
  assert body['usage'] == {'prompt_tokens': 3, 'completion_tokens': 3, 'total_tokens': 6, 'dropped_tokens': 2}
  assert body['timing'] == {'first_token_seconds': 0.25, 'seconds': 0.5, 'tokens_per_second': 8.0}
  assert body['source'] == {'kind': 'text', 'characters': 8, 'pages': None}


def test_a_model_without_tasks_reads_the_text_itself(make_client):
  scheduler = Scripted()
  make_client(scheduler, tasks=()).post(PATH, json={'text': 'red tree'})
  assert scheduler.prompts == ['red tree']


def test_a_stream_says_the_source_the_pieces_and_the_whole(client):
  response = client.post(PATH, json={'text': 'red tree', 'stream': True})
  *events, done, _ = response.text.split('\n\n')
  events = [json.loads(each.removeprefix('data: ')) for each in events]
  assert done == 'data: [DONE]' and (events[0]['type'], events[-1]['type']) == ('source', 'summary')
  assert ''.join(each['text'] for each in events[1:-1]) == events[-1]['summary'] == 'summarize: red tree'


@pytest.mark.parametrize(
  'data', [b'caf\xc3\xa9 au lait', b'\xef\xbb\xbfcaf\xc3\xa9 au lait', 'café au lait'.encode('utf-16')]
)
def test_text_files_are_read_by_their_content(make_client, data):
  scheduler = Scripted()
  body = upload(make_client(scheduler), data, 'a.pdf', task='fix', max_tokens='2', temperature='0.5').json()
  assert scheduler.prompts == ['fix: café au lait']
  assert (scheduler.configs[0].max_tokens, scheduler.configs[0].temperature) == (2, 0.5)
  assert body['source']['kind'] == 'text'


def test_a_pdf_is_read_page_by_page(make_client):
  scheduler = Scripted()
  body = upload(make_client(scheduler, tasks=()), pdf('Red tree river.', 'Blue hill.'), 'a.txt').json()
  assert scheduler.prompts == ['Red tree river.\n\nBlue hill.']
  assert body['source'] == {'kind': 'pdf', 'characters': 27, 'pages': 2}


def locked():
  writer = pypdf.PdfWriter(io.BytesIO(pdf('Red tree.')))
  writer.encrypt('secret', algorithm='RC4-128')
  data = io.BytesIO()
  writer.write(data)
  return data.getvalue()


@pytest.mark.parametrize(
  ('make', 'status', 'words'),
  [
    (lambda: b'', 400, 'the file is empty'),
    (lambda: b'\x7fELF\x02\x01', 415, 'neither a PDF nor a text in UTF-8'),
    (lambda: b'caf\xe9', 415, 'neither a PDF nor a text in UTF-8'),
    (lambda: b'%PDF-1.4\n' + bytes(range(256)) * 40, 400, 'the PDF is damaged and cannot be read'),
    (lambda: pdf(''), 400, 'the PDF has no text; its pages may be pictures'),
    (locked, 400, 'the PDF has a password'),
    (lambda: b' \n', 400, 'empty'),
  ],
)
def test_a_file_that_cannot_be_read_is_refused_in_words(make_client, make, status, words):
  response = upload(make_client(tasks=()), make())
  assert (response.status_code, words in response.json()['error']['message']) == (status, True)


@pytest.mark.parametrize(
  ('request_of', 'status', 'words'),
  [
    ({'data': {'temperature': '1'}, 'files': {'other': b'x'}}, 400, 'file: expected a file'),
    ({'files': {'file': b'x', 'more': b'y'}}, 400, 'Too many files'),
    ({'data': {'temperature': 'warm'}, 'files': {'file': b'x'}}, 400, 'temperature'),
    ({'data': {'temprature': '1'}, 'files': {'file': b'x'}}, 400, 'did you mean temperature?'),
    ({'content': b'x', 'headers': {'Content-Type': 'text/plain'}}, 415, 'application/json or multipart/form-data'),
    ({'content': b'x', 'headers': {'Content-Type': 'multipart/form-data'}}, 400, 'boundary'),
    ({'content': b'{', 'headers': {'Content-Type': 'application/json'}}, 400, 'not valid JSON'),
    ({'json': {}}, 400, 'text is missing'),
    ({'json': {'text': 'a', 'n': 2}}, 400, "there is no parameter 'n'"),
    ({'json': {'text': 'a', 'tools': [1]}}, 400, 'tools: this model does not support it'),
  ],
)
def test_a_wrong_request_is_refused_in_words(client, request_of, status, words):
  response = client.post(PATH, **request_of)
  assert (response.status_code, words in response.json()['error']['message']) == (status, True), response.text
