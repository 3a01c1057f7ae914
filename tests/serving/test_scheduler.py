"""Requests side by side give what each gives alone, and whatever happens to one leaves the others alone."""

import random
import threading
import time

import pytest

from terraformer.config import DecodeConfig, UserError
from terraformer.decode.decoder import Decoder
from terraformer.decode.native.engine import NativeEngine
from terraformer.serving.scheduler import (
  ClosedError,
  Failed,
  Finished,
  FinishReason,
  QueueFullError,
  Scheduler,
)
from tests.serving.small import Receiver, random_requests, small_decoder

LONG = DecodeConfig(max_tokens=150, temperature=2.0, top_k=2, seed=3)
SHORT = DecodeConfig(max_tokens=3)


@pytest.fixture(scope='module', params=['native', 'xla'])
def decoder(request, tokenizer):
  return small_decoder('sparse', tokenizer, request.param)


@pytest.fixture
def start(decoder):
  """Returns start(**options) -> Scheduler, closed after the test."""
  started = []

  def make(**options):
    started.append(Scheduler(decoder, **options))
    return started[-1]

  yield make
  for scheduler in started:
    scheduler.close()


def alone(decoder, prompt, config):
  """The text that a request gives without others, and its statistics."""
  return ''.join(decoder.generate(prompt, config)), decoder.stats


def check_random_requests(decoder, count):
  """Requests that come at random moments give what they give alone."""
  requests, moments = list(random_requests(count)), random.Random(0)
  expected = [alone(decoder, *request) for request in requests]
  receivers = [Receiver() for _ in requests]
  scheduler = Scheduler(decoder, max_concurrent=5)
  try:
    for (prompt, config), receiver in zip(requests, receivers, strict=True):
      scheduler.submit(prompt, config, receiver)
      time.sleep(moments.choice([0, 0, 0.01, 0.05]))
    ends = [receiver.end() for receiver in receivers]
  finally:
    scheduler.close()
  assert [receiver.text for receiver in receivers] == [text for text, _ in expected]
  for end, (_, stats), (_, config) in zip(ends, expected, requests, strict=True):
    counts = ('input_tokens', 'dropped_tokens', 'room', 'tokens')
    assert [getattr(end.stats, name) for name in counts] == [getattr(stats, name) for name in counts]
    if end.reason is FinishReason.LENGTH:
      assert end.stats.tokens == config.max_tokens


def test_texts_that_join_and_leave_are_those_of_each_alone(decoder):
  # XLA compiles other programs for each length of a prompt and each kind of sampling.
  check_random_requests(decoder, 30 if isinstance(decoder.engine, NativeEngine) else 6)


def test_texts_of_the_bundle_that_comes_with_the_package_are_those_of_each_alone():
  check_random_requests(Decoder.open('technical_english'), 12)


def test_a_cancelled_text_frees_its_place(start):
  scheduler, first, second = start(max_concurrent=1), Receiver(), Receiver()
  request = scheduler.submit('Red tree.', LONG, first)
  scheduler.submit('Blue hill.', SHORT, second)
  first.wait_for_piece()
  assert scheduler.status().running == 1 and scheduler.status().queued == 1
  request.cancel()
  end = first.end()
  assert end.reason is FinishReason.CANCELLED and 0 < end.stats.tokens < 150
  assert isinstance(second.end(), Finished)


def test_a_text_that_waits_can_be_cancelled(start):
  scheduler, first, second = start(max_concurrent=1), Receiver(), Receiver()
  running = scheduler.submit('Red tree.', LONG, first)
  first.wait_for_piece()
  scheduler.submit('Blue hill.', SHORT, second).cancel()
  assert second.end().reason is FinishReason.CANCELLED
  assert scheduler.status().queued == 0
  running.cancel()
  first.end()
  running.cancel()  # it has ended, so nothing happens
  assert first.n_ends == 1


def test_a_full_queue_refuses_and_says_when_to_come_again(start):
  scheduler, receivers = start(max_concurrent=1, max_queue=1), [Receiver(), Receiver()]
  requests = [scheduler.submit('Red tree.', LONG, receiver) for receiver in receivers]
  with pytest.raises(QueueFullError) as refused:
    scheduler.submit('Blue hill.', SHORT, Receiver())
  assert refused.value.retry_after >= 1
  for request, receiver in zip(requests, receivers, strict=True):
    request.cancel()
    receiver.end()
  last = Receiver()
  scheduler.submit('Blue hill.', SHORT, last)
  assert isinstance(last.end(), Finished)


def test_texts_wait_while_memory_is_full(start):
  probe = start()
  request = probe.submit('Red tree.', LONG, Receiver())
  one = probe.status().memory_bytes or probe._bytes_of([request])
  request.cancel()
  scheduler, receivers = start(memory_limit=int(1.5 * one)), [Receiver(), Receiver()]
  requests = [scheduler.submit('Red tree.', LONG, receiver) for receiver in receivers]
  receivers[0].wait_for_piece()
  status = scheduler.status()
  assert status.running + status.reading == 1 and status.queued == 1 and status.memory_bytes <= status.memory_limit
  requests[0].cancel()
  receivers[1].wait_for_piece()
  requests[1].cancel()


def test_what_never_fits_is_refused(start):
  with pytest.raises(UserError, match='max_tokens: it would take .* MB, more than 0 MB, the limit of memory'):
    start(memory_limit=1).submit('Red tree.', LONG, Receiver())


@pytest.mark.parametrize(
  ('prompt', 'config', 'message'),
  [
    (' ', DecodeConfig(), 'the text is empty'),
    ('a', DecodeConfig(beams=2), 'beams: '),
    ('a', DecodeConfig(cache_dtype='int8'), 'cache_dtype: expected float32'),
  ],
)
def test_what_is_not_served_is_refused(start, prompt, config, message):
  with pytest.raises(UserError, match=message):
    start().submit(prompt, config, Receiver())


def test_an_error_in_a_step_ends_the_running_texts_alone(start, monkeypatch, caplog):
  scheduler, first, second = start(max_concurrent=1), Receiver(), Receiver()
  scheduler.submit('Red tree.', LONG, first)
  scheduler.submit('Blue hill.', SHORT, second)
  first.wait_for_piece()
  rows, step = scheduler._rows, scheduler._rows.step

  def fail_once():
    monkeypatch.setattr(rows, 'step', step)
    raise RuntimeError('the machine is on fire')

  monkeypatch.setattr(rows, 'step', fail_once)
  end = first.end()
  assert isinstance(end, Failed) and 'fire' not in end.message
  assert isinstance(second.end(), Finished)
  assert 'the machine is on fire' in caplog.text


def test_an_error_while_a_prompt_is_read_ends_that_text_alone(start, monkeypatch):
  scheduler, first, second, third = start(), Receiver(), Receiver(), Receiver()
  request = scheduler.submit('Red tree.', LONG, first)
  first.wait_for_piece()
  rows, read = scheduler._rows, scheduler._rows.read

  def fail_once(prompts, config):
    monkeypatch.setattr(rows, 'read', read)
    raise RuntimeError('too long')

  monkeypatch.setattr(rows, 'read', fail_once)
  scheduler.submit('Blue hill.', SHORT, second)
  scheduler.submit('Blue hill.', SHORT, third)
  assert isinstance(second.end(), Failed) and isinstance(third.end(), Finished)
  assert not first.n_ends
  request.cancel()
  assert first.end().reason is FinishReason.CANCELLED


def test_a_receiver_that_fails_ends_its_text_alone(start):
  scheduler, other, called = start(), Receiver(), []

  def fail(event):
    called.append(event)
    raise OSError('the client left')

  scheduler.submit('Red tree.', LONG, fail)
  scheduler.submit('Blue hill.', SHORT, other)
  assert isinstance(other.end(), Finished)
  scheduler.drain(60)
  assert scheduler.status().running == 0
  assert called[-1].reason is FinishReason.CANCELLED and called[-1].stats.tokens < 150


def test_draining_ends_what_runs_and_takes_nothing_new(start):
  scheduler, receivers = start(max_concurrent=1), [Receiver(), Receiver()]
  for receiver in receivers:
    scheduler.submit('Red tree.', DecodeConfig(max_tokens=20), receiver)
  scheduler.drain(120)
  assert [receiver.n_ends for receiver in receivers] == [1, 1]
  with pytest.raises(ClosedError):
    scheduler.submit('Blue hill.', SHORT, Receiver())


def test_draining_gives_up_after_its_time(start):
  scheduler, receiver = start(), Receiver()
  scheduler.submit('Red tree.', LONG, receiver)
  scheduler.drain(0.01)
  assert not receiver.n_ends


def test_closing_cancels_all_and_leaves_no_thread(decoder):
  scheduler, receivers = Scheduler(decoder, max_concurrent=1), [Receiver(), Receiver()]
  for receiver in receivers:
    scheduler.submit('Red tree.', LONG, receiver)
  receivers[0].wait_for_piece()
  scheduler.close()
  assert [receiver.end().reason for receiver in receivers] == [FinishReason.CANCELLED] * 2
  assert not any(thread.name.startswith('scheduler-') for thread in threading.enumerate())


def test_the_longest_stall_is_that_of_steps(start, monkeypatch):
  scheduler, receiver = start(), Receiver()
  request = scheduler.submit('Red tree.', LONG, receiver)
  receiver.wait_for_piece()
  step, has_slept = scheduler._rows.step, threading.Event()

  def sleep_once():
    monkeypatch.setattr(scheduler._rows, 'step', step)
    time.sleep(0.2)
    has_slept.set()
    return step()

  monkeypatch.setattr(scheduler._rows, 'step', sleep_once)
  assert has_slept.wait(20)
  request.cancel()
  receiver.end()
  assert scheduler.status().longest_stall >= 0.2
