"""Parts in real processes that are killed; a stand-in for seqio makes them start in a second."""

import json
import random
import time

import numpy as np
import pytest

from terraformer import config as config_lib
from terraformer.config import DataConfig, PackingConfig, SeqioTaskConfig, UserError
from terraformer.data import batches, prepare, store

PARTS = 6
_PREPARE = """
import json, sys, time, types
import numpy as np
from terraformer import config as c
from terraformer.data import job, prepare, store
from terraformer.data.tokenizer import Tokenizer
config, share, pause = c.from_dict(json.loads(sys.argv[1])), prepare.Share(*json.loads(sys.argv[2])), float(sys.argv[4])
def run(task, split, part, count):
  if task.name == 'other':
    part += 100
  for index in range(part, 200 if split == 'train' else 20, count):
    time.sleep(pause)
    ids = np.random.default_rng((len(split), index)).integers(3, 300, index % 40).astype(np.int32)
    texts = {'inputs': 'a', 'targets': 'b'}
    yield types.SimpleNamespace(tokens={'inputs': ids, 'targets': ids[:9]}, texts=texts, record='')
features = 'inputs', 'targets'
rates = {'fake': 1.0} if config.task == 'fake' else {'fake': 1.0, 'other': 3.0}
fakes = [
  job.Component(types.SimpleNamespace(
    name=name, output_features=features, splits=store.SPLITS, num_input_examples=lambda split: 20), rate)
  for name, rate in rates.items()]
tokenizer = Tokenizer.open(sys.argv[3], 20)
job.find_text = job.plan = lambda *_: 'text'
job.make_job = lambda config, text, folder, progress: job.Job(
  folder, config, fakes, features, run, tokenizer, store.Origin())
print('started', flush=True)
manifest = prepare.prepare(config, show_progress=False, share=share)
print('whole' if manifest else 'part')
"""


@pytest.fixture(scope='module')
def start(python_process, tokenizer, tmp_path_factory):
  """Returns start(directory, index, count, pause) -> (config, Popen), running once it returns."""
  model = tmp_path_factory.mktemp('parts') / 'vocabulary.model'
  model.write_bytes(tokenizer.model_bytes)

  def start_one(directory, index=0, count=1, pause=0.0, task='fake', **fields):
    config = DataConfig(SeqioTaskConfig(task), str(directory), parts=PARTS, **fields)
    process = python_process(_PREPARE, json.dumps(config_lib.to_dict(config)), [index, count], model, pause)
    assert process.stdout.readline() == 'started\n'
    return config, process

  return start_one


def files(config):
  """What is prepared, byte for byte; where it lies is its own affair."""
  folder = store.folder_of(config)
  found = {path.name: path.read_bytes() for path in folder.iterdir()}
  found[store.MANIFEST] = found[store.MANIFEST].replace(json.dumps(config.directory).encode(), b'')
  return found


@pytest.fixture(scope='module')
def undisturbed(start, tmp_path_factory):
  config, process = start(tmp_path_factory.mktemp('undisturbed'))
  assert process.communicate()[0] == 'whole\n'
  return config


@pytest.mark.parametrize('options', [{}, {'packing': PackingConfig()}, {'task': 'mixed'}])
def test_killed_again_and_again_it_ends_with_the_same_bytes(start, undisturbed, options, tmp_path, tmp_path_factory):
  if options:
    undisturbed, process = start(tmp_path_factory.mktemp('other'), **options)
    process.communicate()
  rng, finished = random.Random(0), []
  for _ in range(3):
    config, process = start(tmp_path, pause=0.005, **options)
    time.sleep(rng.uniform(0.1, 0.7))
    process.kill()
    assert process.wait() == -9
    finished.append(len([path for path in tmp_path.glob('.*.partial-*/part-*') if not path.suffix]))
  assert finished == sorted(finished) and 0 < finished[-1] < PARTS and not prepare.is_prepared(config)
  config, process = start(tmp_path, **options)
  assert process.communicate()[0] == 'whole\n'
  assert files(config) == files(undisturbed)
  assert sorted(path.name for path in tmp_path.iterdir()) == [f'.{config.task}.lock', config.task]


def test_several_processes_write_the_same_bytes(start, undisturbed, tmp_path):
  (config, first), (_, second) = (start(tmp_path, index, 2, pause=0.002) for index in range(2))
  said = sorted(process.communicate()[0] for process in (first, second))
  assert said in (['part\n', 'whole\n'], ['whole\n', 'whole\n'])
  assert files(config) == files(undisturbed)


def test_one_process_of_two_leaves_its_parts_for_the_other(start, undisturbed, tmp_path):
  config, process = start(tmp_path, 1, 2)
  assert process.communicate()[0] == 'part\n' and not prepare.is_prepared(config)
  config, process = start(tmp_path, 0, 2)
  assert process.communicate()[0] == 'whole\n' and files(config) == files(undisturbed)


def test_more_processes_than_parts_are_refused(tmp_path):
  with pytest.raises(UserError, match=r'DataConfig.parts: expected at least one part per process \(8\), found 6'):
    prepare.prepare(DataConfig(SeqioTaskConfig('fake'), str(tmp_path), parts=PARTS), share=prepare.Share(0, 8))


def test_the_manifest_counts_every_example_and_says_what_was_skipped(undisturbed):
  manifest = store.read_manifest(undisturbed)
  assert manifest.examples == {'train': 195, 'validation': 19, 'test': 19}
  assert manifest.dropped == {
    'empty': 7,
    'features cut': 0,
    'windows of one token': 0,
    'beyond max_examples': 0,
  }
  assert manifest.first_dropped == {'empty': 'train, part 0, example 0: no inputs and no targets'}
  folder = store.folder_of(undisturbed)
  assert {name: store.sha256_of(folder / name) for name in manifest.checksums} == manifest.checksums
  shards = [path.name for path in folder.glob('*.array_record')]
  assert sorted(manifest.checksums) == sorted([*shards, store.UNIGRAMS])
  counts = np.load(folder / store.UNIGRAMS)
  assert counts.sum() == manifest.tokens['train']['targets'] + manifest.examples['train']


def test_records_of_a_mixture_stand_task_by_task(start, tmp_path):
  config, process = start(tmp_path, task='mixed')
  process.communicate()
  data = batches.open_prepared(config)
  assert {name: task['examples']['train'] for name, task in data.manifest.tasks.items()} == {'fake': 195, 'other': 98}
  texts = [tuple(data._source('train')[index]['inputs'].tolist()) for index in range(data.size('train'))]
  assert len(texts) == 195 + 98 and set(texts[195:]) <= set(texts[:195])


def test_all_examples_are_read_once(undisturbed):
  data = batches.open_prepared(undisturbed)
  lengths = [len(data._source('train')[index]['inputs']) for index in range(data.size('train'))]
  assert sorted(lengths) == sorted(index % 40 for index in range(200) if index % 40)


@pytest.mark.parametrize('most', [100, 7])
def test_at_most_so_many_examples_over_all_parts(start, most, tmp_path):
  config, process = start(tmp_path, max_examples=most)
  assert process.communicate()[0] == 'whole\n'
  manifest = store.read_manifest(config)
  assert manifest.examples == {'train': most, 'validation': 19, 'test': 19}
  assert manifest.dropped['beyond max_examples'] == 195 - most
  assert len(manifest.shards['train']) == PARTS


# Bytes of a record, and of the last one.
@pytest.mark.parametrize(
  'damaged, message', [(300, ', record [0-9]: the record is damaged'), (400, ': cannot open the shard')]
)
def test_a_damaged_shard_and_its_record_are_named(undisturbed, damaged, message, tmp_path):
  config = DataConfig(SeqioTaskConfig('fake'), str(tmp_path), parts=PARTS)
  folder = store.folder_of(config)
  folder.mkdir()
  for path in store.folder_of(undisturbed).iterdir():
    data = bytearray(path.read_bytes())
    if path.name.startswith('validation-00002'):
      at = np.flatnonzero(data)[damaged]
      data[at : at + 8] = bytes(8)
    (folder / path.name).write_bytes(data)
  data = batches.open_prepared(config)
  with pytest.raises(
    UserError, match=f'fake/validation-00002-of-00006.array_record{message}: .*; prepare the data again'
  ):
    list(data.eval_batches('validation', 4))
