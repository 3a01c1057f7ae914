"""Files that are whole at every moment, and disks that do not take them."""

import errno
import os
import threading
import types
from pathlib import Path

import pytest

from terraformer.bench.chart import draw_chart
from terraformer.config import UserError
from terraformer.data.parts import ShardWriter
from terraformer.eval.predictions import Predictions
from terraformer.files import NO_ROOM, UnwritableError, as_os_errors, lock, rename_to_free, write_whole, writing
from terraformer.training import events, hosts
from terraformer.training.metrics import MetricsLog
from terraformer.training.plot import plot_loss

FAILURES = (*NO_ROOM, errno.EIO)


def full(path):
  """Makes what is written aside, to become `path`, go to a disk that is full."""
  path.with_name(f'.{path.name}.tmp').symlink_to('/dev/full')


@pytest.mark.parametrize('number', FAILURES, ids=errno.errorcode.get)
@pytest.mark.parametrize(
  'error',
  [
    lambda number: OSError(number, os.strerror(number)),
    lambda number: ValueError(f'RESOURCE_EXHAUSTED: Failed writing: "d": {os.strerror(number)} [os_error_code=\'1\']'),
    lambda number: RuntimeError(f'write() failed: {os.strerror(number)}; writing x; at byte 0'),
  ],
  ids=['Python', 'tensorstore', 'array_record'],
)
def test_what_a_disk_does_not_take_is_told_with_the_folder_and_the_reason(error, number):
  with pytest.raises(UnwritableError) as told, writing('runs/mine'):
    raise error(number)
  assert str(told.value) == f'runs/mine cannot be written: {os.strerror(number).lower()}'
  assert told.value.number == number


@pytest.mark.parametrize('error', [OSError(errno.ECONNRESET, 'gone'), TimeoutError(), UserError('x'), ValueError('x')])
def test_other_errors_stay_what_they_are(error):
  with pytest.raises(type(error)) as raised, writing('runs/mine'), as_os_errors():
    raise error
  assert raised.value is error


def test_a_full_disk_is_not_taken_for_another_host_that_is_lost():
  assert not any(hosts.is_loss(UnwritableError('full', number)) for number in NO_ROOM)
  assert hosts.is_loss(UnwritableError('a disk that is mounted', errno.EIO))


def test_what_was_there_stays_where_the_disk_is_full(tmp_path):
  path = tmp_path / 'page'
  write_whole(path, b'old')
  full(path)
  with pytest.raises(OSError, match='No space left'):
    write_whole(path, b'new')
  assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path):
  link, target = tmp_path / 'link', tmp_path / 'elsewhere'
  link.symlink_to(target)
  write_whole(link, b'new')
  assert link.is_symlink() and target.read_bytes() == b'new'
  write_whole(Path('/dev/null'), b'new')
  assert Path('/dev/null').is_char_device()


def test_a_picture_is_replaced_when_it_is_whole(tmp_path):
  path = plot_loss(tmp_path)
  before = path.read_bytes()
  full(path)
  with pytest.raises(OSError, match='No space left'):
    plot_loss(tmp_path, {'unigram model': 3.0})
  assert path.read_bytes() == before


def test_a_shard_on_a_full_disk_fails_as_any_file_does(tmp_path):
  (tmp_path / 'train-00000.array_record').symlink_to('/dev/full')
  writer = ShardWriter(tmp_path, 'train')
  with pytest.raises(OSError, match='No space left'):
    writer.add(b'record' * 1000, {})
    writer.close()


def test_events_fail_where_they_are_written(tmp_path, monkeypatch):
  log = MetricsLog(tmp_path, 0)
  (tmp_path / 'full').symlink_to('/dev/full')
  monkeypatch.setattr(events.time, 'time', lambda: 1e10)  # it is time to write what is buffered
  log._tensorboard._records = events.RecordWriter(str(tmp_path / 'full'))
  with pytest.raises(OSError, match='No space left'):
    log.write(1, 'train', {'loss': 1.0})
  with pytest.raises(OSError, match='No space left'):
    log.close()


def test_a_chart_that_cannot_be_written_is_named():
  result = types.SimpleNamespace(variant='ff', context=8, batch=1, ms_per_token=1.0, layers=(1, 1), dtype='float32')
  with pytest.raises(UserError, match='cannot write /dev/full: no space left on device'):
    draw_chart([result], Path('/dev/full'))


def test_predictions_that_cannot_be_written_are_named(tmp_path, monkeypatch):
  def refuse(_):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

  predictions = Predictions(tmp_path, 'test', {'step': 1})
  monkeypatch.setattr(os, 'fsync', refuse)
  with pytest.raises(UserError, match='cannot write .*evaluation_test.jsonl: disk quota exceeded'):
    predictions.add([('a', 'b')], ['c'])
  assert predictions.texts == []


def test_a_lock_that_is_taken_refuses_and_one_that_is_free_does_not(tmp_path):
  with lock(tmp_path / '.lock'), pytest.raises(UserError, match='taken'), lock(tmp_path / '.lock', UserError('taken')):
    pass
  with lock(tmp_path / '.lock', UserError('taken')):
    pass


def test_without_a_refusal_a_lock_waits_for_the_other(tmp_path):
  order = []

  def wait():
    with lock(tmp_path / '.lock'):
      order.append('second')

  with lock(tmp_path / '.lock'):
    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.1)
    order.append('first')
  thread.join(10)
  assert order == ['first', 'second']


def test_what_is_renamed_gets_the_first_name_that_is_free(tmp_path):
  for content in ('a', 'b', 'c'):
    (tmp_path / 'page').write_text(content)
    rename_to_free(tmp_path / 'page', (f'page.old{n or ""}' for n in range(9)))
  assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
    'page.old': 'a',
    'page.old1': 'b',
    'page.old2': 'c',
  }
