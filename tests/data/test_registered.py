"""The library's seqio tasks over real TFDS builders on small local dumps, in one process of their own."""

import collections
import dataclasses
import json
from pathlib import Path

import pytest

from terraformer import config as config_lib
from terraformer.cli import load_configs
from terraformer.config import (
  DataConfig,
  DecodeConfig,
  LanguageModelConfig,
  LMConfig,
  LocalFolderConfig,
  LongAdditionConfig,
  SeqioTaskConfig,
  SpanCorruptionConfig,
  TfdsConfig,
  TokenizerConfig,
)
from terraformer.data import batches
from terraformer.data.tokenizer import Tokenizer
from terraformer.eval.evaluate import evaluate
from terraformer.training.loop import train
from tests.prepared import DENSE_BLOCK, PLAIN, sentences

_REAL = """
import functools, json, os, sys
from unittest import mock
import numpy as np, seqio, tensorflow_datasets as tfds
from tensorflow_datasets.text import c4
from terraformer import config as c
from terraformer.data import prepare, registered

folder, out = sys.argv[1], {}
with mock.patch.object(tfds.download.DownloadManager, 'download_and_extract',
                       lambda self, urls: {name: f'{folder}/dump' for name in urls}):
  for name in ('arxiv', 'pubmed'):
    tfds.builder(f'scientific_papers/{name}', data_dir=f'{folder}/tfds').download_and_prepare()
pages = json.load(open(f'{folder}/pages.json'))
def split_generators(self, dl_manager):
  fields = ('content-length', 'content-type', 'timestamp', 'url')
  make = lambda texts: ((i, {'text': text, **dict.fromkeys(fields, '-')}) for i, text in enumerate(texts))
  return {split: make(texts) for split, texts in pages.items()}
with mock.patch.object(c4.C4, '_split_generators', split_generators):
  tfds.builder('c4/en', data_dir=f'{folder}/tfds').download_and_prepare()

for values in json.load(open(f'{folder}/configs.json')):
  prepare.prepare(c.from_dict(values), show_progress=False)

first = c.from_dict(json.load(open(f'{folder}/configs.json'))[0])
path = f'{first.directory}/{first.task}/vocabulary.model'
out['names'] = registered.register_all(path, 100, f'{folder}/tfds')
numbers = c.DecimalCopyConfig(train_examples=50, held_out_examples=5)
registered.register(c.DataConfig(numbers, tokenizer=c.TokenizerConfig(path)))
read = lambda name, split='train', seed=0, **lengths: [
  {key: value.tolist() for key, value in example.items() if not key.endswith('pretokenized')}
  for example in seqio.get_mixture_or_task(name).get_dataset(
    lengths, split, shuffle=False, seed=seed).as_numpy_iterator()]
out['spans'] = [read('c4_span_corruption', seed=seed, inputs=64, targets=40) for seed in (0, 0, 1)]
out['lm'] = read('c4_lm', targets=32)
out['prefix'] = read('c4_prefix_lm', inputs=32, targets=16)
out['arxiv'] = read('arxiv_summarization', 'test', inputs=16, targets=8)
out['copy'] = read('decimal_copy', 'test', inputs=400, targets=400)
out['metrics'] = [fn(['1 2', '34'], ['1 2', '35']) for name in ('arxiv_summarization', 'long_addition')
                  for fn in seqio.get_mixture_or_task(name).metric_fns]
out['metrics'] += [fn(['1 2', 'Ёж ушёл'], ['1 2', 'ёж пришёл'])
                   for fn in seqio.get_mixture_or_task('arxiv_summarization').metric_fns]
seqio.MixtureRegistry.add('papers_and_digits', [('arxiv_summarization', 1.0), ('decimal_copy', 3.0)])
prepare.prepare(c.DataConfig(c.SeqioTaskConfig('papers_and_digits'), f'{folder}/prepared'), show_progress=False)
def said(**fields):
  try:
    prepare.prepare(c.from_dict({**c.to_dict(first), 'directory': f'{folder}/bad', **fields}), show_progress=False)
  except c.UserError as error:
    return str(error)
bad = lambda name: c.to_dict(c.LocalFolderConfig(f'{folder}/{name}'))
elsewhere = lambda place: c.to_dict(c.TfdsConfig('c4/en:3.1.0', place))
out['errors'] = {
  'no data': said(source=elsewhere(f'{folder}/nowhere')),
  'no bucket of data': said(source=elsewhere('gs://terraformer-jax-no-such-bucket/tfds')),
  'no bucket of a vocabulary': said(
    tokenizer=c.to_dict(c.TokenizerConfig('gs://terraformer-jax-no-such-bucket/a.model'))),
  'no column': said(source=bad('bad_column'), name='', objective=None),
  'no text': said(source=bad('bad_row'), name='', objective=None),
  'cut off': said(source=bad('bad_file'), name='', objective=None),
  'no folder': said(source=bad('none'), name='', objective=None),
}
json.dump(out, open(f'{folder}/out.json', 'w'))
"""

VOCABULARY = TokenizerConfig(size=600, sentinels=100)
SUBWORDS = Path(__file__).parent / 'vectors' / 'small.subword'


def write_papers(folder, name):
  papers = folder / 'dump' / f'{name}-dataset'
  papers.mkdir(parents=True)
  for split, count in {'train': 30, 'val': 3, 'test': 4}.items():
    rows = []
    for i, text in enumerate(sentences(count, seed=len(split))):
      article = [] if split == 'train' and i == 7 else [text, f'{name} {i}']
      rows.append({
        'article_id': f'{split}{i}',
        'article_text': article,
        'abstract_text': [f'<S> Abstract {i} of {name} .</S>'],
        'section_names': ['one'],
        'sections': [article],
      })  # fmt: skip
    (papers / f'{split}.txt').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def write_folders(folder):
  import pyarrow
  import pyarrow.parquet

  def table(name, rows):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)

  rows = [{'document': text, 'summary': text[:8], 'more': 1} for text in sentences(40)]
  table('hugging/data/train-00000-of-00002.parquet', rows[:30])
  (folder / 'hugging/data/train-00001-of-00002.jsonl').write_text('\n'.join(map(json.dumps, rows[30:])))
  table('hugging/data/validation-00000-of-00001.parquet', rows[:3])
  (folder / 'hugging/data/train.csv').write_text('document,summary')
  table('bad_column/train.parquet', rows)
  table('bad_row/train.parquet', [{'inputs': 'a', 'targets': 'b'}] * 3 + [{'inputs': 'a', 'targets': None}])
  (folder / 'bad_file').mkdir()
  whole = (folder / 'bad_row/train.parquet').read_bytes()
  (folder / 'bad_file/train.parquet').write_bytes(whole[:-20])
  return rows


@pytest.fixture(scope='module')
def real(python, tmp_path_factory):
  """(configs by task, what the process said, the texts of the folder)."""
  folder = tmp_path_factory.mktemp('registered')
  for name in ('arxiv', 'pubmed'):
    write_papers(folder, name)
  pages = {'train': sentences(200, words=40), 'validation': sentences(20, seed=1)}
  (folder / 'pages.json').write_text(json.dumps(pages))
  rows = write_folders(folder)
  base = {
    'directory': str(folder / 'prepared'),
    'tokenizer': VOCABULARY,
  }
  tfds = str(folder / 'tfds')
  c4 = TfdsConfig('c4/en:3.1.0', tfds)
  arxiv, pubmed = (
    TfdsConfig(f'scientific_papers/{name}:1.1.1', tfds, 'article', 'abstract') for name in ('arxiv', 'pubmed')
  )
  spans = {'name': 'c4_span_corruption', 'objective': SpanCorruptionConfig()}
  sums = LongAdditionConfig(train_examples=50, held_out_examples=5)
  configs = [
    DataConfig(c4, inputs_length=64, targets_length=40, parts=3, **spans, **base),
    DataConfig(c4, inputs_length=0, targets_length=32, name='c4_lm', objective=LMConfig(), **base),
    DataConfig(arxiv, inputs_length=16, targets_length=8, parts=2, name='arxiv_summarization', **base),
    DataConfig(pubmed, name='pubmed_summarization', **base),
    DataConfig(sums, inputs_length=640, targets_length=304, parts=4, **base),
    DataConfig(LocalFolderConfig(str(folder / 'hugging'), 'document', 'summary'), **base),
    DataConfig(
      LocalFolderConfig(str(folder / 'hugging'), 'document', 'summary'),
      name='in_subwords',
      **base | {'tokenizer': TokenizerConfig(str(SUBWORDS))},
    ),
  ]
  (folder / 'configs.json').write_text(json.dumps([config_lib.to_dict(config) for config in configs]))
  python(_REAL, folder)
  return {config.task: config for config in configs}, json.loads((folder / 'out.json').read_text()), rows


def restored(example, first):
  """The window of an example of span corruption, token by token."""
  spans, last = {}, None
  for token in example['targets'][:-1]:
    if token >= first:
      last = spans.setdefault(token, [])
    else:
      last.append(token)
  return [token for i in example['inputs'][:-1] for token in (spans[i] if i >= first else [i])]


def test_texts_are_prepared_in_subwords(real):
  configs, _, rows = real
  data, tokenizer = batches.open_prepared(configs['in_subwords']), Tokenizer.open(SUBWORDS)
  assert data.tokenizer.fingerprint == tokenizer.fingerprint
  for batch, (document, _) in zip(data.eval_batches('validation', 1, 3), data.eval_texts('validation', 3), strict=True):
    (ids,) = batch['inputs'].tolist()
    assert document in {row['document'] for row in rows}
    assert [id_ for id_ in ids if id_] == [*tokenizer.encode(document), tokenizer.eos_id]


def test_c4_is_prepared_and_read_as_corrupted_spans(real):
  data = batches.open_prepared(real[0]['c4_span_corruption'])
  first = data.tokenizer.size - 100
  batch = data.train_batches(8, 0).batch(0)
  assert batch['inputs'].shape == (8, 64) and batch['targets'].shape == (8, 40)
  text = '\n'.join(sentences(200, words=40))
  for inputs, targets in zip(batch['inputs'], batch['targets'], strict=True):
    example = {'inputs': inputs[inputs != 0].tolist(), 'targets': targets[targets != 0].tolist()}
    words = data.tokenizer.decode(restored(example, first)).split('.')[0].split()
    assert ' '.join(words[2:-2]) in text


@pytest.mark.parametrize(
  'task, train_examples, decode',
  [
    ('c4_span_corruption', None, None),
    ('arxiv_summarization', 29, DecodeConfig(max_tokens=3)),
    ('papers_and_digits', 29 + 50, DecodeConfig(max_tokens=3)),
  ],
)
def test_a_corpus_of_tfds_is_trained_on_and_evaluated(real, gin_file, tmp_path, task, train_examples, decode):
  run = load_configs([str(gin_file)], [])[0]
  run = dataclasses.replace(
    run,
    model=LanguageModelConfig(VOCABULARY.size, 104, n_layers=1, decoder=DENSE_BLOCK, residual=PLAIN),
    data=real[0].get(task, DataConfig(SeqioTaskConfig(task), real[0]['c4_lm'].directory, inputs_length=64)),
    train=dataclasses.replace(run.train, steps=2, batch_size=4, eval_every=0, sample_every=0),
  )
  data = batches.open_prepared(run.data)
  assert train_examples in (None, data.size('train')) and data.size('validation') >= 3
  assert train(run, tmp_path, show_progress=False).step == 2
  found = evaluate(tmp_path, 'validation', 3, show_progress=False, decode=decode, batch_size=3)
  # After two steps a model knows next to nothing: its perplexity is about the number of ids.
  assert (found.step, found.n_examples) == (2, 3) and 300 < found.perplexity < 1200
  assert len(found.texts) == (3 if decode else 0) and (found.rouge.keys() == found.lead_rouge.keys())
  if task == 'papers_and_digits':
    digits = sum(source.isdigit() for source, _, _ in found.texts)
    assert 0 < digits < 3 and {name: scores['texts'] for name, scores in found.by_task.items()} == {
      'arxiv_summarization': 3 - digits,
      'decimal_copy': digits,
    }
    assert found.by_task['decimal_copy'].keys() == {'texts', 'exact_match'}
    assert found.by_task['arxiv_summarization'].keys() == {'texts', 'exact_match', *found.rouge}
  else:
    assert not found.by_task


def test_c4_windows_of_seqio_and_of_prepared_data_are_the_same(real):
  configs, said, _ = real
  data = batches.open_prepared(configs['c4_lm'])
  windows = [data._source('train')[i]['targets'].tolist() for i in range(data.size('train'))]
  assert [example['targets'] for example in said['lm']] == windows
  assert all('inputs' not in example for example in said['lm'])


def test_spans_of_seqio_repeat_by_seed_and_give_back_the_text(real):
  configs, said, _ = real
  one, again, other = said['spans']
  data = batches.open_prepared(configs['c4_span_corruption'])
  first = data.tokenizer.size - 100
  assert one == again and one != other
  assert [restored(example, first) for example in one] == [restored(example, first) for example in other]
  length = configs['c4_span_corruption'].window_length
  assert all(len(restored(example, first)) == length for example in one[:-1])
  assert all(
    len(example['inputs']) == 64 and example['inputs'][-1] == example['targets'][-1] == 1 for example in one[:-1]
  )


def test_a_prefix_of_seqio_goes_on_in_the_targets(real):
  for example in real[1]['prefix'][:-1]:
    assert example['inputs'][-1] == 1 and len(example['inputs']) <= 32 and len(example['targets']) == 16


@pytest.mark.parametrize('name', ['arxiv', 'pubmed'])
def test_papers_are_prepared_and_an_empty_article_is_counted(real, name):
  data = batches.open_prepared(real[0][f'{name}_summarization'])
  assert data.manifest.examples == {'train': 29, 'validation': 3, 'test': 4}
  assert data.manifest.dropped['empty'] == 1 and data.manifest.first_dropped['empty'].endswith('no inputs')
  inputs, targets = data.eval_texts('test', 1)[0]
  assert f'\n{name} ' in inputs and targets.strip().startswith('Abstract') and '<S>' not in targets


def test_long_articles_are_cut_and_closed_as_seqio_does(real):
  configs, said, _ = real
  rows = next(batches.open_prepared(configs['arxiv_summarization']).eval_batches('test', 4))
  for name, length in (('inputs', 16), ('targets', 8)):
    ours = sorted(rows[name].tolist())
    theirs = sorted([*ids, *[0] * (length - len(ids))] for ids in (example[name] for example in said['arxiv']))
    # The two vocabularies differ, the lengths do not.
    assert [len(ids) for ids in ours] == [len(ids) for ids in theirs]
    assert all(ids[-1] in (0, 1) and 1 in ids for ids in ours + theirs)


def test_sums_are_right_and_test_numbers_are_longer(real):
  data = batches.open_prepared(real[0]['long_addition'])
  for split, (least, most) in {'validation': (1, 128), 'test': (256, 300)}.items():
    for inputs, targets in data.eval_texts(split, 5):
      one, other = inputs.split('+')
      assert int(one) + int(other) == int(targets)
      assert least <= len(one) <= most and least <= len(other) <= most
  batch = next(data.eval_batches('test', 5))
  assert all((row == 1).sum() == 1 for row in batch['inputs'])  # the end: nothing is cut
  assert data.manifest.examples['train'] == 50


def test_numbers_to_copy_are_given_to_seqio(real):
  for example in real[1]['copy']:
    assert example['inputs'] == example['targets'] and 257 <= len(example['inputs']) <= 302


def test_metrics_are_those_of_the_task(real):
  rouge, exact, of_russian = real[1]['metrics']
  assert exact == {'exact_match': 50} and rouge.keys() == {'rouge1', 'rouge2', 'rougeL', 'rougeLsum'}
  assert rouge['rouge1'] == 50
  assert of_russian['rouge1'] == 75 and of_russian['standard_rouge1'] == 50


def test_a_folder_of_parquet_and_jsonl_holds_every_row_once(real):
  configs, _, rows = real
  data = batches.open_prepared(configs['local_folder'])
  assert data.manifest.examples == {'train': 40, 'validation': 3, 'test': 0}
  assert data.manifest.dropped['files of another kind'] == 1
  assert data.manifest.first_dropped['files of another kind'].endswith('data/train.csv')
  assert data.manifest.dropped['held out as well'] == 3
  assert data.manifest.first_dropped['held out as well'].endswith('data/train-00000-of-00002.parquet, row 1')
  seen = collections.Counter(
    data.tokenizer.decode(data._source('train')[i]['inputs']) for i in range(data.size('train'))
  )
  assert seen == collections.Counter(row['document'] for row in rows)


def test_a_mixture_of_tasks_is_prepared_at_its_rates(real):
  data = batches.open_prepared(DataConfig(SeqioTaskConfig('papers_and_digits'), real[0]['c4_lm'].directory))
  assert {name: task['rate'] for name, task in data.manifest.tasks.items()} == {
    'arxiv_summarization': 1,
    'decimal_copy': 3,
  }
  inputs = data.train_batches(80, seed=0).batch(0)['inputs']
  assert sum(data.tokenizer.decode(ids).isdigit() for ids in inputs) == 60


def test_bad_sources_are_named_in_a_sentence(real):
  errors = real[1]['errors']
  assert 'c4/en:3.1.0: TFDS cannot find or build it in' in errors['no data']
  assert 'c4/en:3.1.0: TFDS cannot find or build it in' in errors['no bucket of data']
  assert 'no-such-bucket/a.model: expected an address that can be reached, found' in errors['no bucket of a vocabulary']
  assert "train.parquet: expected the column 'inputs', found the columns" in errors['no column']
  assert "train.parquet, row 4: expected text in the field 'targets', found None" in errors['no text']
  assert 'train.parquet: the Parquet file is damaged: ' in errors['cut off']
  assert 'LocalFolderConfig.directory: expected a folder, found' in errors['no folder']
  assert not any('\n' in message for message in errors.values())


def test_objectives_of_the_same_windows_may_be_exchanged(real):
  config = real[0]['c4_span_corruption']
  wider = DataConfig(**{f: getattr(config, f) for f in config.__dataclass_fields__} | {'targets_length': 60})
  assert batches.open_prepared(wider).train_batches(2, 0).batch(0)['targets'].shape == (2, 60)
  with pytest.raises(config_lib.UserError, match='prepared with data.inputs_length = 64, not 0'):
    batches.open_prepared(
      DataConfig(
        **{f: getattr(config, f) for f in config.__dataclass_fields__} | {'inputs_length': 0, 'objective': LMConfig()}
      )
    )
  assert config.text_objective == SpanCorruptionConfig()
