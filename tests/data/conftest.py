"""One run of the real thing, seqio and all, in a process."""

import json
import os
import subprocess
import sys

import pytest

from terraformer.config import DataConfig, LocalFilesConfig, TokenizerConfig
from tests.prepared import ROOT, sentences, with_own_sentinels

SMALL = TokenizerConfig(size=450, sentinels=20)

_REAL = """
import dataclasses, json, sys
import seqio, tensorflow as tf
from terraformer import config as c
from terraformer.data import prepare, registered
folder, out = sys.argv[1], {}
def said(config):
  try:
    prepare.prepare(config, show_progress=False)
  except c.UserError as error:
    return str(error)
local = c.LocalFilesConfig(train=(f'{folder}/pairs.jsonl',))
small = c.TokenizerConfig(size=450, sentinels=20)
pairs = c.DataConfig(local, f'{folder}/a', tokenizer=small)
prepare.prepare(pairs, show_progress=False)
path = f'{folder}/a/local_files/vocabulary.model'
text = c.DataConfig(
  c.LocalFilesConfig(train=(f'{folder}/text.txt',)), f'{folder}/b',
  tokenizer=c.TokenizerConfig(path=path, sentinels=20), inputs_length=8, targets_length=8, max_examples=50)
prepare.prepare(text, show_progress=False)
for name, packing in (('d', c.PackingConfig()), ('e', None)):
  config = c.DataConfig(
    local, f'{folder}/{name}', packing=packing,
    tokenizer=c.TokenizerConfig(path=path, sentinels=20), inputs_length=170, targets_length=40)
  prepare.prepare(config, show_progress=False)
vocabulary = seqio.SentencePieceVocabulary(path, extra_ids=20)
texts = lambda split, shuffle_files=False, seed=None: tf.data.Dataset.from_tensor_slices(
  {'inputs': ['red tree', 'blue hill', ''], 'targets': ['a door', 'a road', 'nothing']})
for name in ('mine', 'other'):
  seqio.TaskRegistry.add(
    name, source=seqio.FunctionDataSource(texts, ['train', 'validation']),
    preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    output_features={n: seqio.Feature(vocabulary) for n in ('inputs', 'targets')})
seqio.MixtureRegistry.add('mixed', ['mine', 'other'], default_rate=1.0)
for name in ('mine', 'mixed'):
  prepare.prepare(c.DataConfig(c.SeqioTaskConfig(name), f'{folder}/c'), show_progress=False)
other = seqio.SentencePieceVocabulary(path, extra_ids=30)
seqio.TaskRegistry.add(
  'strange', source=seqio.FunctionDataSource(texts, ['train', 'validation']),
  preprocessors=[seqio.preprocessors.tokenize],
  output_features={n: seqio.Feature(other) for n in ('inputs', 'targets')})
seqio.MixtureRegistry.add('strangers', [('mine', 1), ('strange', 1)])
seqio.MixtureRegistry.add('never', [('mine', 1), ('other', 0)])
def outside(dataset):
  return dataset.map(lambda example: {n: tf.concat([example[n], [9999]], 0) for n in ('inputs', 'targets')})
def registered_as(name, splits, *steps):
  seqio.TaskRegistry.add(
    name, source=seqio.FunctionDataSource(texts, splits), preprocessors=[seqio.preprocessors.tokenize, *steps],
    output_features={n: seqio.Feature(vocabulary) for n in ('inputs', 'targets')})
registered_as('outside', ['train'], outside)
registered_as('splitless', ['all'])
def failing(dataset):
  def check(example):
    with tf.control_dependencies([tf.debugging.assert_less(tf.size(example['inputs']), 0, 'far\\ntoo large')]):
      return {n: tf.identity(example[n]) for n in ('inputs', 'targets')}
  return dataset.map(check)
registered_as('failing', ['train'], failing)
for name in ('nobody', 'strangers', 'never', 'outside', 'splitless', 'failing'):
  out[name] = said(c.DataConfig(c.SeqioTaskConfig(name), f'{folder}/c'))
mine = c.DataConfig(
  local, tokenizer=c.TokenizerConfig(path=path, sentinels=20))
out['twice'] = [registered.register(mine, name).name for name in ('', 'news', 'news')]
read = lambda name, split: list(seqio.get_mixture_or_task(name).get_dataset(
  {'inputs': 99, 'targets': 99}, split, shuffle=False).as_numpy_iterator())
out['news'] = [vocabulary.decode(example['inputs'].tolist()) for example in read('news', 'validation')]
seqio.MixtureRegistry.add('news_and_mine', [('news', 1), ('mine', 3)])
mixed = c.DataConfig(c.SeqioTaskConfig('news_and_mine'), f'{folder}/c', inputs_length=64, targets_length=16)
prepare.prepare(mixed, show_progress=False)
packed = c.DataConfig(
  c.SeqioTaskConfig('news_and_mine'), f'{folder}/packed', inputs_length=170, targets_length=40,
  packing=c.PackingConfig())
prepare.prepare(packed, show_progress=False)
running = c.DataConfig(
  c.LocalFilesConfig((f'{folder}/text.txt',)), inputs_length=64,
  tokenizer=c.TokenizerConfig(path=path, sentinels=20))
registered.register(dataclasses.replace(running, objective=c.SpanCorruptionConfig()), 'spans')
seqio.MixtureRegistry.add('news_and_spans', [('news', 1), ('spans', 1)])
spans = c.DataConfig(
  c.SeqioTaskConfig('news_and_spans'), f'{folder}/c', inputs_length=32, targets_length=12, max_examples=60)
prepare.prepare(spans, show_progress=False)
out['packed spans'] = said(dataclasses.replace(spans, directory=f'{folder}/d', packing=c.PackingConfig()))
out['long spans'] = said(dataclasses.replace(spans, directory=f'{folder}/d', inputs_length=400, targets_length=120))
own = c.DataConfig(
  c.LocalFilesConfig((f'{folder}/text.txt',)), f'{folder}/own', inputs_length=64,
  tokenizer=c.TokenizerConfig(f'{folder}/own.model', sentinels=20), objective=c.SpanCorruptionConfig())
prepare.prepare(own, show_progress=False)
registered.register(own, 'own_spans')
out['own spans'] = [{n: example[n].tolist() for n in ('inputs', 'targets')} for example in read('own_spans', 'train')]
out['few own'] = said(dataclasses.replace(
  own, directory=f'{folder}/f', tokenizer=c.TokenizerConfig(own.tokenizer.path)))
as_seqios = registered.SentencePieceVocabulary(path, extra_ids=20)
out['equal'] = as_seqios == vocabulary and vocabulary == as_seqios and as_seqios.vocab_size == vocabulary.vocab_size
from terraformer.data import tasks
upwards = seqio.SentencePieceVocabulary(path, extra_ids=20, reverse_extra_ids=False)
seqio.TaskRegistry.add(
  'upwards', source=seqio.FunctionDataSource(texts, ['train', 'validation']),
  preprocessors=[seqio.preprocessors.tokenize], output_features={'targets': seqio.Feature(upwards)})
out['upwards'] = tasks.vocabulary_of(tasks.find('upwards')).sentinel_ids
strings = json.load(open(f'{folder}/strings.json'))
out['encoded'] = [vocabulary.encode(s) for s in strings]
out['encoded_tf'] = [vocabulary.encode_tf(s).numpy().tolist() for s in strings]
out['size'] = vocabulary.vocab_size
json.dump(out, open(f'{folder}/out.json', 'w'))
"""

STRINGS = ['red tree', '  two\n\n spaces ', '日本語 and 😀', 'a <extra_id_3> b <extra_id_0>', 'tab\tand 42', '']


@pytest.fixture(scope='session')
def really_prepared(python, tmp_path_factory):
  """A folder in which seqio has prepared pairs (a), text (b), a user's task and mixture (c), the pairs in packs (d) and
  in none (e), and what it said."""
  folder = tmp_path_factory.mktemp('real')
  lines = [json.dumps({'inputs': text, 'targets': f'{text.split()[0]} thing'}) for text in sentences(200)]
  (folder / 'pairs.jsonl').write_text('\n'.join(lines))
  (folder / 'text.txt').write_text('\n\n'.join(sentences(100, seed=1)))
  (folder / 'strings.json').write_text(json.dumps(STRINGS))
  names = [f'\u2581<extra_id_{i}>' for i in range(20)]
  (folder / 'own.model').write_bytes(with_own_sentinels(names))
  python(_REAL, folder)
  return folder, json.loads((folder / 'out.json').read_text())


@pytest.fixture(scope='session')
def python_process():
  """Returns start(code, *arguments) -> Popen of a fresh interpreter that can import the package."""

  def start(code, *arguments):
    command = [sys.executable, '-c', code, *map(str, arguments)]
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

  return start


@pytest.fixture
def local(tmp_path):
  """A config of the user's own files, and a stand-in for the part that needs TensorFlow."""
  source = tmp_path / 'a.txt'
  source.write_text('\n\n'.join(sentences(60)))
  return DataConfig(LocalFilesConfig((str(source),)), str(tmp_path / 'out'), tokenizer=SMALL)
