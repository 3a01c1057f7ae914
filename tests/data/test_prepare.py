import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from terraformer.config import (
  DataConfig,
  LocalFilesConfig,
  LocalFolderConfig,
  PackingConfig,
  SeqioTaskConfig,
  SpanCorruptionConfig,
  TokenizerConfig,
  UserError,
  from_dict,
)
from terraformer.data import batches, child, job, parts, prepare, records, store
from terraformer.data.source import make_source
from terraformer.data.tokenizer import Tokenizer
from tests.data.conftest import SMALL


def test_nothing_of_tensorflow_is_imported(python):
  done = python(
    'import sys, terraformer.data.batches, terraformer.data.prepare, terraformer.data.local_files\n'
    'print([name for name in ("tensorflow", "seqio", "tensorflow_datasets") if name in sys.modules])'
  )
  assert done.stdout == '[]\n'


def test_vocabulary_and_corpora_need_no_grain_either(python):
  code = (
    'import sys, terraformer.data.tokenizer, terraformer.data.docstrings\nprint({"grain", "jax"} & set(sys.modules))'
  )
  assert python(code).stdout == 'set()\n'


def test_real_pairs_hold_every_example_once(really_prepared):
  folder, _ = really_prepared
  stored = json.loads((folder / 'a/local_files/manifest.json').read_text())['config']
  config = DataConfig(_local(stored), str(folder / 'a'), tokenizer=SMALL)
  data = batches.open_prepared(config)
  lines = [json.loads(line) for line in (folder / 'pairs.jsonl').read_text().splitlines()]
  pairs = [pair for split in store.SPLITS for pair in data.eval_texts(split, 1000)]
  assert sorted(pairs) == sorted((line['inputs'], line['targets']) for line in lines)
  assert data.size('validation') == 10 and data.size('test') == 9
  assert data.manifest.vocabulary_size == data.tokenizer.size
  assert data.unigram_counts.sum() == data.tokenizer.size + data.manifest.tokens['train']['targets'] + data.size(
    'train'
  )
  changed = Path(folder / 'pairs.jsonl').read_text()
  (folder / 'pairs.jsonl').write_text(changed + '\n')
  with pytest.raises(UserError, match='pairs.jsonl has changed since it was prepared'):
    child.ensure_prepared(config)
  (folder / 'pairs.jsonl').write_text(changed)
  assert child.ensure_prepared(config) == data.manifest


def _local(stored):
  return LocalFilesConfig(train=tuple(stored['source']['train']))


@pytest.mark.parametrize('name', ['pairs.jsonl', './pairs.jsonl', './/pairs.jsonl', '{}//pairs.jsonl'])
def test_data_are_those_that_were_prepared_however_their_files_are_named(really_prepared, monkeypatch, name):
  folder, _ = really_prepared
  monkeypatch.chdir(folder)
  files = LocalFilesConfig((name.format(folder),))
  config = DataConfig(files, str(folder / 'a'), tokenizer=SMALL)
  assert child.ensure_prepared(config).examples['validation'] == 10
  with pytest.raises(UserError, match="data.source.train = .*, not \\('text.txt',\\)"):
    child.ensure_prepared(dataclasses.replace(config, source=LocalFilesConfig(('text.txt',))))


def test_parts_are_gone_on_with_however_files_are_named():
  def plan(name):
    plans = []
    for source in (LocalFilesConfig((f'{name}.txt',)), LocalFolderConfig(name)):
      text = job.Text(make_source(source), store.Origin(), (), None)
      plans.append(job.plan(DataConfig(source, tokenizer=TokenizerConfig(name)), text))
    return plans

  assert plan('a/b') == plan('./a/b') == plan('a//b') != plan('a/c')


def test_a_vocabulary_may_lie_elsewhere_but_not_be_another(really_prepared, tokenizer, tmp_path):
  folder, _ = really_prepared
  values = json.loads((folder / 'd/local_files/manifest.json').read_text())['config']
  config, moved = from_dict(values), tmp_path / 'moved.model'
  moved.write_bytes(Path(config.tokenizer.path).read_bytes())
  elsewhere = dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, path=str(moved)))
  assert child.ensure_prepared(elsewhere) == child.ensure_prepared(config)
  moved.write_bytes(tokenizer.model_bytes)
  with pytest.raises(UserError, match=r'moved.model has changed since it was prepared'):
    child.ensure_prepared(elsewhere)


def test_real_text_is_cut_into_windows(really_prepared):
  folder, _ = really_prepared
  stored = json.loads((folder / 'b/local_files/manifest.json').read_text())
  assert stored['features'] == ['targets'] and stored['examples']['train'] == 50
  assert stored['tokens']['train']['targets'] == 50 * 16


def test_a_users_task_and_mixture_are_prepared_with_their_vocabulary(really_prepared):
  folder, _ = really_prepared
  data = batches.open_prepared(DataConfig(SeqioTaskConfig('mine'), str(folder / 'c')))
  assert sorted(data.eval_texts('validation', 9)) == [('blue hill', 'a road'), ('red tree', 'a door')]
  assert data.manifest.dropped['empty'] == 2 and data.size('test') == 0
  assert data.tokenizer.sentinels == 20
  with pytest.raises(UserError, match='the split test has no examples'):
    next(data.eval_batches('test', 2))


def test_a_mixture_holds_its_tasks_whole_and_is_read_at_its_rates(really_prepared):
  folder, _ = really_prepared
  data = batches.open_prepared(
    DataConfig(SeqioTaskConfig('news_and_mine'), str(folder / 'c'), inputs_length=64, targets_length=16)
  )
  counts = {name: (task['rate'], *task['examples'].values()) for name, task in data.manifest.tasks.items()}
  assert counts == {'mine': (3, 2, 2, 0), 'news': (1, 181, 10, 9)}
  assert [data.size(split) for split in store.SPLITS] == [183, 12, 9]
  assert data.manifest.dropped['empty'] == 2 and 'of mine' in data.manifest.first_dropped['empty']
  train = data.train_batches(8, seed=0)
  texts = [data.tokenizer.decode(ids) for number in range(181 * 4 // 8) for ids in train.batch(number)['inputs']]
  mine = [text for text in texts if text in ('red tree', 'blue hill')]
  assert len(mine) == 3 * len(texts) // 4 and len(set(texts) - set(mine)) >= 180  # one is in an unfinished batch
  held_out = {inputs for inputs, _ in data.eval_texts('validation', 99)}
  assert len(held_out) == 12 and {'red tree', 'blue hill'} <= held_out


def test_packs_of_a_mixture_are_drawn_by_their_examples(really_prepared):
  folder, _ = really_prepared
  config = DataConfig(SeqioTaskConfig('news_and_mine'), str(folder / 'packed'), inputs_length=170, targets_length=40)
  data = batches.open_prepared(dataclasses.replace(config, packing=PackingConfig()))
  tasks = data.manifest.tasks
  assert (tasks['mine']['examples']['train'], tasks['mine']['packed'], tasks['news']['packed']) == (1, 2, 181)
  train = data.train_batches(10, seed=0)
  rows = [row for number in range(100) for row in train.batch(number)['inputs_segments']]
  examples = np.array([row.max() for row in rows])
  is_mine = np.concatenate([train.ids(number) for number in range(100)]) == 0
  assert examples[is_mine].sum() / examples.sum() == pytest.approx(0.75, abs=0.01)


def test_running_text_of_a_mixture_is_corrupted_when_it_is_read(really_prepared):
  folder, said = really_prepared
  config = DataConfig(
    SeqioTaskConfig('news_and_spans'), str(folder / 'c'), inputs_length=32, targets_length=12, max_examples=60
  )
  data = batches.open_prepared(config)
  assert not data.manifest.is_text and data.manifest.objectives == [None, SpanCorruptionConfig()]
  assert [task['examples']['train'] for task in data.manifest.tasks.values()] == [60, 60]
  assert data.manifest.dropped['beyond max_examples'] > 181 - 60
  first = data.tokenizer.size - 20
  train = data.train_batches(8, seed=0)
  seen = {}
  for number in range(40):
    batch = train.batch(number)
    is_spans = batch['index'] >= data.manifest.tasks['news']['examples']['train']
    assert is_spans.sum() == 4 and ((batch['targets'] >= first).any(1) == is_spans).all()
    for row, index in zip(batch['targets'][is_spans], batch['index'][is_spans], strict=True):
      seen.setdefault(int(index), set()).add(tuple(row.tolist()))
  assert max(map(len, seen.values())) > 2  # other spans in every epoch
  held_out = data.eval_texts('validation', 99)
  assert len(held_out) == data.size('validation') and any('thing' in targets for _, targets in held_out)
  assert said['packed spans'] == (
    'DataConfig.packing: running text can be packed only with the objective LMConfig, found SpanCorruptionConfig'
  )
  assert said['long spans'] == 'TokenizerConfig.sentinels: expected one per span (22), found 20'
  with pytest.raises(UserError, match='prepared with data.inputs_length = 32, not 64; choose another'):
    batches.open_prepared(dataclasses.replace(config, inputs_length=64, targets_length=20))


def test_what_cannot_be_prepared_is_named_and_leaves_nothing(really_prepared):
  folder, said = really_prepared
  assert "is registered as 'nobody'" in said['nobody'] and '--module' in said['nobody']
  assert said['strangers'] == 'task strangers: all features must have the same vocabulary'
  assert said['outside'].startswith('train, part 0, example 0: expected ids from 0 to ')
  assert said['outside'].endswith(' in inputs, found 9999')
  assert said['splitless'] == 'task splitless: needs the split train, but has all'
  assert 'task failing, train, part 0: cannot read the source: ' in said['failing']
  assert 'assertion failed: [far' in said['failing']
  assert said['never'] == 'mixture never, rate of other: expected a positive number, found 0.0'
  assert {path.name for path in (folder / 'c').iterdir() if path.is_dir()} == {
    'mine',
    'mixed',
    'news_and_mine',
    'news_and_spans',
  }


def test_own_files_are_registered_under_any_name_and_again(really_prepared):
  folder, said = really_prepared
  assert said['twice'] == ['local_files', 'news', 'news']
  texts = [json.loads(line)['inputs'] for line in (folder / 'pairs.jsonl').read_text().splitlines()]
  assert len(said['news']) == 10 and set(said['news']) <= set(texts)


def test_lengths_of_pairs_may_change_but_nothing_else(fake_prepared):
  config = fake_prepared()
  longer = dataclasses.replace(
    config, inputs_length=9, targets_length=99, directory=f'{config.directory}/../' + Path(config.directory).name
  )
  assert prepare.prepare(longer, show_progress=False).examples['train'] == 40
  with pytest.raises(UserError, match='prepared with data.max_examples = 0, not 3; choose another'):
    prepare.prepare(dataclasses.replace(config, max_examples=3))
  with pytest.raises(UserError, match='prepared with data.tokenizer.size = 8192, not 450; choose another'):
    child.ensure_prepared(dataclasses.replace(config, tokenizer=TokenizerConfig(size=450)))


def test_lengths_of_text_may_not_change(fake_prepared):
  config = fake_prepared('text', has_inputs=False)
  with pytest.raises(UserError, match='prepared with data.inputs_length = 128, not 64; choose another'):
    prepare.prepare(dataclasses.replace(config, inputs_length=64))


def test_a_strange_folder_is_refused(tmp_path):
  config = DataConfig(directory=str(tmp_path))
  (tmp_path / config.task).mkdir()
  (tmp_path / config.task / 'thesis.txt').write_text('mine')
  with pytest.raises(UserError, match='a folder without manifest.json'):
    prepare.prepare(config)
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write to .*: '):
    prepare.prepare(DataConfig(directory=str(tmp_path / 'file')))


def test_missing_tensorflow_is_said(local, monkeypatch):
  monkeypatch.setattr(job.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'terraformer-jax\[data\]'"):
    prepare.prepare(local)


def test_an_exception_before_the_first_part_is_whole_leaves_nothing(local, monkeypatch):
  def interrupted(config, text, folder, show_progress):
    (folder / 'x').write_text('')
    raise KeyboardInterrupt

  monkeypatch.setattr(job, 'find_text', lambda *_: None)
  monkeypatch.setattr(job, 'plan', lambda *_: 'plan')
  monkeypatch.setattr(job, 'make_job', interrupted)
  with pytest.raises(KeyboardInterrupt):
    prepare.prepare(local)
  assert [path.name for path in Path(local.directory).iterdir()] == ['.local_files.lock']


@pytest.mark.parametrize('length', [1, 3, 7, 50])
def test_windows_are_the_documents_one_after_another(length):
  rng = np.random.default_rng(0)
  documents = [rng.integers(3, 99, size) for size in (1, 5, 0, 20, 3)]
  joined = [i for document in documents for i in [*document.tolist(), 1]]
  expected = [joined[i : i + length] for i in range(0, len(joined), length)]
  assert [window.tolist() for window in records.windows(documents, length)] == expected


@pytest.mark.parametrize('count, most', [(0, 3), (5, 0), (2, 3), (3, 3), (10, 3), (1000, 7)])
def test_evenly_spread(count, most):
  kept, seen = records.evenly(iter(range(count)), most)
  assert seen == count
  assert len(kept) == min(count, most) and kept == sorted(set(kept))
  if count > most > 0:
    gaps = np.diff([*kept, count])
    assert gaps.max() <= 3 * count / most


def test_shards_are_cut_and_named(tmp_path):
  writer = parts.ShardWriter(tmp_path, 'train', shard_bytes=100)
  for _ in range(10):
    writer.add(store.pack({'targets': np.arange(10)}, {}), {'targets': np.arange(10)})
  writer.close()
  names = [f'train-{i:05d}-of-{len(writer.shards):05d}.array_record' for i in range(len(writer.shards))]
  assert len(names) > 1 and list(writer.shards) == names == sorted(path.name for path in tmp_path.iterdir())
  assert writer.examples == 10 and writer.tokens == {'targets': 100}


def test_seqio_reads_a_model_with_sentinels_of_its_own(really_prepared):
  folder, said = really_prepared
  words = Tokenizer.open(folder / 'own.model', 20)
  config = DataConfig(
    LocalFilesConfig((str(folder / 'text.txt'),)),
    str(folder / 'own'),
    inputs_length=64,
    tokenizer=TokenizerConfig(str(folder / 'own.model'), sentinels=20),
    objective=SpanCorruptionConfig(),
  )
  data = batches.open_prepared(config)
  assert data.tokenizer.fingerprint == words.fingerprint and data.tokenizer.sentinel_ids == words.sentinel_ids
  used = data.train_batches(4, 0).batch(0)['targets'][:, 0].tolist()
  assert used == [words.sentinel_ids[0]] * 4
  assert {example['targets'][0] for example in said['own spans']} == {words.sentinel_ids[0]}
  assert 'own.model: expected a model with all the sentinels <extra_id_0> to <extra_id_99>' in said['few own']


def test_vocabularies_of_seqio_are_its_own_in_whichever_order_it_adds_sentinels(really_prepared):
  _, said = really_prepared
  assert said['equal']
  assert said['upwards'] == list(range(said['size'] - 20, said['size']))
