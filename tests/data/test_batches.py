import dataclasses
import itertools
import json
import shutil
import threading

import numpy as np
import pytest

from terraformer.config import LMConfig, UserError
from terraformer.data import batches, store


@pytest.fixture(scope='module')
def config(fake_prepared):
  return fake_prepared(inputs_length=10, targets_length=4)


@pytest.fixture(scope='module')
def text_config(fake_prepared):
  return fake_prepared('text', has_inputs=False, inputs_length=10, targets_length=6)


@pytest.fixture(scope='module')
def data(config):
  return batches.open_prepared(config)


def equal(one, two):
  return all(np.array_equal(one[name], two[name]) for name in ('inputs', 'targets', 'index'))


def test_shapes_types_and_padding(data, tokenizer):
  batch = data.train_batches(8, seed=0).batch(3)
  assert batch['inputs'].shape == (8, 10) and batch['targets'].shape == (8, 4) and batch['index'].shape == (8,)
  assert batch['inputs'].dtype == batch['targets'].dtype == np.int32 and batch['index'].dtype == np.int64
  assert ((batch['inputs'] == 1).sum(axis=1) == 1).all()
  assert (batch['inputs'][:, -1] == 1).all()  # sentences are longer than ten tokens


def test_short_features_end_and_are_padded(config):
  data = batches.open_prepared(dataclasses.replace(config, targets_length=40))
  for row in data.train_batches(4, 0).batch(0)['targets']:
    end = int(np.argmax(row == 1))
    assert row[:end].all() and not row[end + 1 :].any()


@pytest.mark.parametrize('name', ['config', 'text_config'])
def test_a_step_is_all_the_state(name, request):
  config = request.getfixturevalue(name)
  one = batches.open_prepared(config).train_batches(7, seed=5)
  ahead = [one.batch(step) for step in range(12)]
  fresh = batches.open_prepared(config).train_batches(7, seed=5)
  for step in (11, 4, 0):
    assert equal(fresh.batch(step), ahead[step])


def test_seeds_differ(data):
  assert not equal(data.train_batches(8, 0).batch(0), data.train_batches(8, 1).batch(0))


def test_an_epoch_holds_every_example_once_in_its_own_order(data):
  train = data.train_batches(8, 0)
  epochs = [np.concatenate([train.batch(5 * epoch + i)['index'] for i in range(5)]) for epoch in range(3)]
  assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
  assert epochs[0].tolist() != epochs[1].tolist() != epochs[2].tolist()


@pytest.mark.parametrize('rows', [range(4), range(4, 8), [1, 6, 7]])
def test_some_rows_of_a_batch_are_those_of_the_whole(data, rows):
  whole = data.train_batches(8, 0).batch(7)  # of the second epoch
  part = data.train_batches(8, 0).batch(7, rows)
  assert part.keys() == whole.keys()
  for name, values in part.items():
    np.testing.assert_array_equal(values, whole[name][list(rows)], strict=True)
  held_out, held_out_part = (list(data.eval_batches('validation', 8, rows=r)) for r in (None, rows))
  for one, two in zip(held_out, held_out_part, strict=True):
    for name, values in two.items():
      np.testing.assert_array_equal(values, one[name][list(rows)], strict=True)


def test_ids_are_those_of_the_records_that_a_batch_reads(data):
  train = data.train_batches(8, 3)
  for number in (0, 4, 5, 17):  # within an epoch of 40, at its end, and later ones
    assert train.ids(number).tolist() == train.batch(number)['index'].tolist()


def test_tasks_are_drawn_at_their_rates_each_in_epochs_of_its_own(data):
  def begin():
    return batches.TrainBatches(data._source('train'), arrange, 10, seed=2, shares=[(4, 1.0), (36, 1.5)])

  def arrange(record, rng):
    return {'index': np.int64(record['index']), 'drawn': rng.integers(1 << 30)}

  train = begin()
  read = [train.batch(number) for number in range(24)]
  index = np.concatenate([batch['index'] for batch in read])
  for number in (23, 7, 0):
    again = begin().batch(number, [1, 8])
    assert all(np.array_equal(again[name], read[number][name][[1, 8]]) for name in again)
    assert begin().ids(number).tolist() == read[number]['index'].tolist()
  assert all((batch['index'] < 4).sum() == 4 for batch in read)
  small, large = index[index < 4].reshape(-1, 4), index[index >= 4].reshape(-1, 36)
  assert (np.sort(small) == np.arange(4)).all() and len({tuple(epoch) for epoch in small.tolist()}) > 4
  assert (np.sort(large) == np.arange(4, 40)).all()
  assert len({int(drawn) for batch in read for drawn in batch['drawn']}) == 240  # each reading has numbers of its own


def test_tasks_of_one_size_are_not_drawn_in_one_order(data):
  train = batches.TrainBatches(data._source('train'), data._arranged, 40, seed=2, shares=[(20, 1.0), (20, 1.0)])
  one, other = (ids - ids.min() for ids in (train.ids(0)[train.ids(0) < 20], train.ids(0)[train.ids(0) >= 20]))
  assert sorted(one) == sorted(other) and one.tolist() != other.tolist()


def test_evaluation_is_the_same_each_time_and_filled_up(data):
  first, second = (list(data.eval_batches('validation', 4)) for _ in range(2))
  assert len(first) == 3 and all(map(equal, first, second))
  index = np.concatenate([batch['index'] for batch in first])
  assert sorted(index) == [-1, *range(11)] and index[-1] == -1
  assert not first[-1]['inputs'][-1].any() and not first[-1]['targets'][-1].any()


def test_fewer_batches_are_the_first_ones_whatever_their_size(data):
  whole = np.concatenate([batch['index'] for batch in data.eval_batches('validation', 4)])
  some = np.concatenate([batch['index'] for batch in data.eval_batches('validation', 3, max_examples=6)])
  assert some.tolist() == whole[:6].tolist() != list(range(6))


def twice(data, size, **options):
  """Of every held-out example: index, its source, its target, and the source and the target of its second batch."""
  found = []
  for batch, other in data.eval_batches_twice('validation', size, **options):
    columns = [batch['index'], batch['inputs'], batch['targets'], other['inputs'], other['targets']]
    found += list(zip(*(column.tolist() for column in columns), strict=True))
  return [row for row in found if row[0] >= 0]


@pytest.mark.parametrize('size', [1, 4, 5, 16])
def test_shuffled_sources_are_those_of_other_examples_whatever_the_size_of_a_batch(data, size):
  rows = twice(data, size)
  indices, sources, targets, other_sources, same_targets = map(list, zip(*rows, strict=True))
  assert targets == same_targets and len(indices) == 11
  assert other_sources == [sources[-1], *sources[:-1]]
  one_by_one = [batch['index'].tolist()[0] for batch in data.eval_batches('validation', 1)]
  assert indices == one_by_one


def test_a_process_has_the_shuffled_sources_of_its_own_rows(data):
  whole, part = (list(data.eval_batches_twice('validation', 8, rows=rows)) for rows in (None, [1, 6]))
  for (_, one), (_, two) in zip(whole, part, strict=True):
    for name, values in two.items():
      np.testing.assert_array_equal(values, one[name][[1, 6]], strict=True)


def test_sources_are_shuffled_within_their_task(config):
  mixture = batches.open_prepared(dataclasses.replace(config, inputs_length=60))  # whole sources, which differ
  mixture._ends, mixture._tasks = mixture._ends | {'validation': np.array([4, 11])}, mixture._tasks * 2
  sources = {str(row[1]): row[0] for row in twice(mixture, 4)}
  for index, _, _, other, _ in twice(mixture, 4):
    assert (index < 4) == (sources[str(other)] < 4) and sources[str(other)] != index


@pytest.mark.parametrize(('objective', 'most'), [(LMConfig(), None), (None, 1)])
def test_without_sources_or_with_one_alone_there_is_nothing_to_shuffle(fake_prepared, objective, most):
  lengths = {'inputs_length': 0 if objective else 10, 'targets_length': 6}
  data = batches.open_prepared(fake_prepared('text', has_inputs=False, objective=objective, **lengths))
  found = list(data.eval_batches_twice('validation', 4, most))
  assert found and all(other is None for _, other in found)
  assert all(map(equal, (batch for batch, _ in found), data.eval_batches('validation', 4, most)))


def test_texts_are_those_of_the_batches_and_not_cut(data, tokenizer):
  texts = data.eval_texts('validation', 5)
  rows = next(data.eval_batches('validation', 5))
  for (inputs, targets), ids, index in zip(texts, rows['inputs'], rows['index'], strict=True):
    assert inputs.startswith(tokenizer.decode(ids)) and targets == f'Summary {index}'


def test_a_window_is_split_into_prefix_and_continuation(text_config):
  data = batches.open_prepared(text_config)
  source = data._source('train')
  splits = set()
  for step in range(20):
    batch = data.train_batches(4, 0).batch(step)
    for inputs, targets, index in zip(batch['inputs'], batch['targets'], batch['index'], strict=True):
      window = source[int(index)]['targets'].tolist()
      prefix = inputs[: np.flatnonzero(inputs)[-1]].tolist()  # what is before the closing end of sequence
      both = prefix + targets[: np.flatnonzero(targets)[-1] + 1].tolist()
      assert any(window[i : i + len(both)] == both for i in range(len(window)))
      assert inputs[len(prefix)] == 1 and not inputs[len(prefix) + 1 :].any()
      splits.add(len(prefix))
  assert splits == set(range(1, 10))


def test_windows_of_evaluation_are_split_the_same_each_time(text_config):
  first, second = (list(batches.open_prepared(text_config).eval_batches('validation', 4)) for _ in range(2))
  assert all(map(equal, first, second))
  assert len({int((row != 0).sum()) for batch in first for row in batch['inputs']}) > 2


def test_texts_of_windows_continue_each_other(text_config):
  data = batches.open_prepared(text_config)
  for inputs, targets in data.eval_texts('validation', 5):
    assert inputs and targets


def test_unigram_counts_are_smoothed_and_of_the_vocabulary(data):
  counts = data.unigram_counts
  assert counts.shape == (data.tokenizer.size,) and counts.min() == 1
  assert counts[1] == 41  # an end of sequence for each of 40 targets


def damage(config, change, tmp_path):
  copy = dataclasses.replace(config, directory=str(tmp_path))
  shutil.copytree(store.folder_of(config), store.folder_of(copy))
  change(store.folder_of(copy))
  return copy


def _edit(**fields):
  def change(folder):
    path = folder / store.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))

  return change


def _task(**fields):
  """Changes what the manifest says of its task."""

  def change(folder):
    _edit(tasks={'pairs': json.loads((folder / store.MANIFEST).read_text())['tasks']['pairs'] | fields})(folder)

  return change


def _counts(make):
  """Counts of tokens that are others, and have their checksum."""

  def change(folder):
    counts_KxV = np.load(folder / store.UNIGRAMS)
    np.save(folder / store.UNIGRAMS, make(counts_KxV))
    checksums = json.loads((folder / store.MANIFEST).read_text())['checksums']
    _edit(checksums=checksums | {store.UNIGRAMS: store.sha256_of(folder / store.UNIGRAMS)})(folder)

  return change


def _header(old, new):
  """A file of counts whose header is another, as long as before, with its checksum."""

  def change(folder):
    path = folder / store.UNIGRAMS
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new).replace(b' ' * (len(new) - len(old)) + b'\n', b'\n'))
    checksums = json.loads((folder / store.MANIFEST).read_text())['checksums']
    _edit(checksums=checksums | {store.UNIGRAMS: store.sha256_of(path)})(folder)

  return change


def _shorten(name, size):
  def change(folder):
    path = next(folder.glob(name))
    path.write_bytes(path.read_bytes()[:size])

  return change


@pytest.mark.parametrize(
  'change, expected',
  [
    (lambda folder: (folder / store.MANIFEST).unlink(), 'found a folder without manifest.json'),
    (_shorten('manifest.json', 50), 'manifest.json: not a valid manifest of prepared data; prepare it again'),
    (_edit(extra=1), 'the manifest has missing or unknown entries'),
    (
      _edit(format=99),
      'expected at most prepared data of format 7, found 99, which a newer version wrote; update terraformer',
    ),
    (_shorten('train-*', 1000), 'array_record: expected [0-9]+ bytes, found 1000 bytes'),
    (lambda folder: next(folder.glob('test-*')).unlink(), 'found no such file'),
    (_shorten('vocabulary.model', 1000), 'vocabulary.model is .*, not a sentencepiece model'),
    (_shorten('unigram_counts.npy', 100), 'does not match the checksum in the manifest; prepare'),
    (_edit(features=None), "expected list in the entry 'features', found None"),
    (_edit(tasks={'pairs': {}}), 'expected a rate, counts and an objective of every task, found'),
    (
      _edit(tasks={'pairs': {'rate': 1, 'examples': dict.fromkeys(store.SPLITS, 3), 'packed': 0, 'objective': None}}),
      'expected 40 examples in the tasks of the split train, found 3',
    ),
    (_task(rate='1'), 'expected a rate, counts and an objective of every task, found'),
    (_task(rate=float('inf')), 'expected a rate, counts and an objective of every task, found'),
    (_task(packed=[]), 'expected a rate, counts and an objective of every task, found'),
    (_task(examples=[40, 11, 7]), 'expected a rate, counts and an objective of every task, found'),
    (_task(examples={'train': [], 'validation': 11, 'test': 7}), 'expected a rate, counts and an objective of every'),
    (_task(examples={'train': 40.0, 'validation': 11, 'test': 7}), 'expected a rate, counts and an objective of every'),
    (_task(examples={'train': 40}), 'expected a rate, counts and an objective of every task, found'),
    (
      _edit(shards=dict.fromkeys(store.SPLITS, {}) | {'more': 3}),
      "expected the entry 'shards' as it was written, found 3",
    ),
    (_edit(shards=dict.fromkeys(store.SPLITS, {'a': '9'})), "expected the entry 'shards' as it was written, found '9'"),
    (
      _edit(shards=dict.fromkeys(store.SPLITS, {'../a': 9})),
      "the entry 'shards' must name files in the same folder, found '../a'",
    ),
    (
      _edit(shards=dict.fromkeys(store.SPLITS, {'\0': 9})),
      "the entry 'shards' must name files in the same folder, found '",
    ),
    (_edit(dropped={'empty': []}), "expected the entry 'dropped' as it was written, found \\[\\]"),
    (_edit(scoring=[]), "expected dict in the entry 'scoring', found"),
    (_edit(scoring={'pairs': {'rouge': 1}}), "expected the entry 'scoring' as it was written, found 1"),
    (_edit(scoring={'pairs': {'bleu': True}}), r"expected \['lead', 'rouge'\] in the scoring of 'pairs', found"),
    (_edit(features=[3]), "expected the entry 'features' as it was written, found 3"),
    (_edit(sentinels=-1), "expected the entry 'sentinels' as it was written, found -1"),
    (_edit(longest=True), "expected the entry 'longest' as it was written, found True"),
    (_edit(vocabulary_size=10**9, sentinels=10**9), r'expected counts of tokens, int64\[1, 1000000000\]'),
    (_edit(sentinels=10**9), 'contains invalid token counts'),
    (_counts(np.negative), 'contains invalid token counts; prepare the data again'),
    (_counts(lambda x: np.full_like(x, 2**62)), 'contains invalid token counts; prepare the data again'),
    (_counts(lambda x: x.astype(float)), r'unigram_counts.npy: expected counts of tokens, int64\[1, '),
    (_counts(lambda x: x.astype(object)), r'unigram_counts.npy: expected counts of tokens, int64\[1, '),
    (_counts(lambda x: x[:, :9]), r'unigram_counts.npy: expected counts of tokens, int64\[1, '),
    (_counts(lambda x: x[0]), r'unigram_counts.npy: expected counts of tokens, int64\[1, '),
    (_header(b'(1, ', b'(1000000000000, '), r'unigram_counts.npy: expected counts of tokens, int64\[1, '),
    (_header(b'False', b'(9999'), r'unigram_counts.npy: expected counts of tokens, int64\[1, '),
    (_header(b'\x93NUMPY\x01', b'\x93NUMPY\x07'), r'unigram_counts.npy: expected counts of tokens, int64\[1, '),
    (_edit(examples={}), "expected int in the entry 'examples' of train, found None"),
    (_edit(vocabulary_fingerprint='0'), 'does not match the manifest; prepare the data again'),
  ],
)
def test_damaged_data_is_refused_in_a_sentence(config, change, expected, tmp_path):
  with pytest.raises(UserError, match=expected) as caught:
    batches.open_prepared(damage(config, change, tmp_path))
  assert '\n' not in str(caught.value)


def test_missing_data_is_refused(config):
  with pytest.raises(
    UserError,
    match='expected the prepared data of nothing, found no such folder; prepare them with `terraformer prepare`',
  ):
    batches.open_prepared(dataclasses.replace(config, name='nothing'))


def test_prefetch_keeps_the_order_and_runs_ahead():
  computed = []
  batches_ahead = batches.prefetch(lambda step: computed.append(step) or step, 3, 20, ahead=2)
  assert list(itertools.islice(batches_ahead, 4)) == [3, 4, 5, 6]
  batches_ahead.close()
  assert computed[:4] == [3, 4, 5, 6] and computed[-1] <= 8
  assert list(batches.prefetch(lambda step: step, 0, 3)) == [0, 1, 2]
  assert list(batches.prefetch(lambda step: step, 3, 3)) == []


def test_prefetch_raises_where_the_step_is_due_and_stops_its_thread():
  def batch_at(step):
    if step == 2:
      raise ValueError('step 2')
    return step

  seen = []
  with pytest.raises(ValueError, match='step 2'):
    for step in batches.prefetch(batch_at, 0, 9):
      seen.append(step)
  assert seen == [0, 1]
  assert not [thread for thread in threading.enumerate() if thread.name.startswith('prefetch')]
