import numpy as np
import pytest

from terraformer.config import DataConfig, LMConfig, SeqioTaskConfig, SpanCorruptionConfig, TokenizerConfig, UserError
from terraformer.data import batches
from terraformer.data.span_corruption import corrupt
from terraformer.data.tokenizer import Tokenizer
from tests.prepared import with_own_sentinels

VOCABULARY, SENTINELS, WINDOW = 32_000, 100, 568
SENTINEL_IDS = VOCABULARY - 1 - np.arange(SENTINELS)


def windows(count, length=WINDOW):
  return np.random.default_rng(7).integers(2, VOCABULARY - SENTINELS, (count, length))


def restore(inputs, targets, first_sentinel):
  """The window, token by token: a sentinel in the inputs gives way to what follows it in the targets."""
  spans, last = {}, None
  for token in targets.tolist():
    if token >= first_sentinel:
      last = spans.setdefault(token, [])
    else:
      last.append(token)
  return [token for i in inputs.tolist() for token in (spans[i] if i >= first_sentinel else [i])]


def test_inputs_and_targets_give_back_1000_windows_and_are_as_long_as_t5s():
  rng = np.random.default_rng(0)
  for window in windows(1000):
    inputs, targets = corrupt(window, SENTINEL_IDS, SpanCorruptionConfig(), rng)
    assert (len(inputs), len(targets)) == (511, 113)  # and an end of sequence each
    assert restore(inputs, targets, VOCABULARY - SENTINELS) == window.tolist()


def test_share_and_length_of_spans_are_those_asked_for_within_2_percent():
  rng, noise, spans = np.random.default_rng(0), 0, 0
  for window in windows(1000):
    _, targets = corrupt(window, SENTINEL_IDS, SpanCorruptionConfig(), rng)
    is_sentinel = targets >= VOCABULARY - SENTINELS
    noise, spans = noise + (~is_sentinel).sum(), spans + is_sentinel.sum()
  assert noise / (1000 * WINDOW) == pytest.approx(0.15, rel=0.02)
  assert noise / spans == pytest.approx(3, rel=0.02)


def test_every_division_into_spans_occurs():
  seen = {
    tuple(corrupt(np.arange(2, 8), 98 - np.arange(2), SpanCorruptionConfig(0.5, 1.5), np.random.default_rng(seed))[0])
    for seed in range(200)
  }
  # Three tokens of six are cut out in two spans: 1 + 2 or 2 + 1, each behind one or two tokens that are kept.
  assert seen == {(2, 98, 4, 5, 97), (2, 98, 5, 6, 97), (2, 3, 98, 5, 97), (2, 3, 98, 6, 97)}


@pytest.mark.parametrize('length', [2, 3, 10, 100])
def test_a_short_window_comes_back(length):
  window = windows(1, length)[0]
  inputs, targets = corrupt(window, SENTINEL_IDS, SpanCorruptionConfig(), np.random.default_rng(0))
  assert restore(inputs, targets, VOCABULARY - SENTINELS) == window.tolist()
  assert (len(inputs) + 1, len(targets) + 1) == SpanCorruptionConfig().lengths(length)


@pytest.mark.parametrize('targets_length', [114, 256])
def test_t5s_and_the_papers_lengths_read_the_same_windows(targets_length):
  assert (
    DataConfig(inputs_length=512, targets_length=targets_length, objective=SpanCorruptionConfig()).window_length
    == WINDOW
  )


@pytest.mark.parametrize(
  'fields, expected',
  [
    ({'targets_length': 113}, 'targets_length: expected at least 114 for the spans of 512 inputs, found 113'),
    ({'tokenizer': TokenizerConfig(sentinels=27)}, r'sentinels: expected one per span \(28\), found 27'),
    ({'inputs_length': 2}, 'inputs_length: expected at least 3 for span corruption, found 2'),
    ({'objective': LMConfig()}, r'expected 0 for language modeling \(LMConfig\), found 512'),
  ],
)
def test_lengths_that_cannot_be_are_refused(fields, expected):
  with pytest.raises(UserError, match=expected):
    DataConfig(**{'objective': SpanCorruptionConfig(), 'inputs_length': 512, 'targets_length': 114} | fields)


SPANS = SpanCorruptionConfig(mean_span_length=1.5)


@pytest.fixture(scope='module')
def prepared(fake_prepared):
  return fake_prepared('text', has_inputs=False, objective=SPANS, inputs_length=20, targets_length=9)


def test_an_epoch_draws_other_spans_and_equal_seeds_the_same(prepared):
  def read(seed):
    """What becomes of each window in two epochs: index -> both pairs of features."""
    train, found = batches.open_prepared(prepared).train_batches(4, seed), {}
    for number in range(2 * data.size('train') // 4):
      batch = train.batch(number)
      for index, inputs, targets in zip(batch['index'], batch['inputs'], batch['targets'], strict=True):
        found.setdefault(int(index), []).append((inputs.tolist(), targets.tolist()))
    return found

  data = batches.open_prepared(prepared)
  one = read(3)
  assert one == read(3) and one != read(4)
  assert len(one) == data.size('train') and all(len(pairs) == 2 for pairs in one.values())
  assert sum(first != second for first, second in one.values()) > 0.9 * len(one)


def test_prepared_windows_come_back_from_batches(prepared):
  data = batches.open_prepared(prepared)
  records = data._source('train')
  first = data.tokenizer.size - data.tokenizer.sentinels
  batch = data.train_batches(8, 0).batch(0)
  for inputs, targets, index in zip(batch['inputs'], batch['targets'], batch['index'], strict=True):
    inputs, targets = (ids[: np.flatnonzero(ids == 1)[-1]] for ids in (inputs, targets))
    assert restore(inputs, targets, first) == records[int(index)]['targets'].tolist()
  assert data.unigram_counts[-1] == data.size('train') + 1


@pytest.mark.parametrize('order', [1, -1])
def test_spans_are_marked_by_the_sentinels_that_a_vocabulary_has_itself(fake_prepared, order):
  words = Tokenizer.from_bytes(with_own_sentinels([f'\u2581<extra_id_{i}>' for i in range(20)][::order]), 20)
  data = batches.open_prepared(
    fake_prepared('own', has_inputs=False, words=words, objective=SPANS, inputs_length=20, targets_length=9)
  )
  last = np.arange(words.size)  # ids, the sentinels in T5's place
  last[words.sentinel_ids] = VOCABULARY - np.arange(20)
  batch, n_spans = data.train_batches(8, 0).batch(0), 2
  for inputs, targets, index in zip(batch['inputs'], batch['targets'], batch['index'], strict=True):
    inputs, targets = (last[ids[: np.flatnonzero(ids == 1)[-1]]] for ids in (inputs, targets))
    assert inputs[inputs > VOCABULARY - 20].tolist() == [VOCABULARY - i for i in range(n_spans)]
    assert restore(inputs, targets, VOCABULARY - 19) == data._source('train')[int(index)]['targets'].tolist()
  assert all(data.unigram_counts[words.sentinel_ids[:n_spans]] == data.size('train') + 1)
  assert all(data.unigram_counts[words.sentinel_ids[n_spans:]] == 1)


def test_language_modelling_reads_the_window_itself(fake_prepared):
  config = fake_prepared('plain', has_inputs=False, objective=LMConfig(), inputs_length=0, targets_length=16)
  data = batches.open_prepared(config)
  batch = data.train_batches(4, 0).batch(0)
  assert batch['inputs'].shape == (4, 0)
  for targets, index in zip(batch['targets'], batch['index'], strict=True):
    window = data._source('train')[int(index)]['targets']
    assert targets.tolist() == [*window.tolist(), *[0] * (16 - len(window))]


def test_an_objective_of_pairs_is_refused(fake_prepared):
  config = fake_prepared('pairs_alone')
  with pytest.raises(UserError, match='objective: expected None for pairs_alone, a task of pairs, found Span'):
    batches.open_prepared(
      DataConfig(SeqioTaskConfig('pairs_alone'), config.directory, targets_length=64, objective=SPANS)
    )
