"""Measures the scheduler. `rates`: tokens per second of texts side by side, in turns with a plain batch of as many.
`clients`: the same of clients that submit one request after another, with the time of their prompts. `stalls`: how long
a running text pauses while long prompts are read.

The batch is `Decoder.generate_batch`, whose steps are those of `terraformer bench decode`. Without --bundle, weights
are random; the bundle is removed at the end.

    python benchmarks/serve.py --bundle=technical_english --words=100 --tokens=144
    python benchmarks/serve.py --gin_file=gin_configs/models/terraformer_800m.gin --dtype=int8
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from terraformer import libraries
from terraformer.cli import load_configs
from terraformer.config import DecodeConfig
from terraformer.data.tokenizer import train_vocabulary
from terraformer.decode.bundle import Content, parameter_shapes, write_bundle
from terraformer.decode.decoder import Decoder
from terraformer.serving.scheduler import Event, Piece, Scheduler

_TEXT = 'the river runs to the sea and the sea is wide so we build a bridge of stone and wood over it'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--bundle', help='folder or name of a bundle (default: random weights)')
  parser.add_argument('--gin_file', default='gin_configs/models/terraformer_800m.gin', help='of the random model')
  parser.add_argument('--dtype', default='int8', help='of its weights (default: %(default)s)')
  parser.add_argument('--cache_dtype', help='of keys and values (default: float32 with --bundle, otherwise --dtype)')
  parser.add_argument('--folder', default=None, help="for it (default: the system's temporary one)")
  parser.add_argument('--clients', type=int, default=8, help='(default: %(default)s)')
  parser.add_argument('--tokens', type=int, default=96, help='of a text (default: %(default)s)')
  parser.add_argument('--words', type=int, default=12, help='of a prompt (default: %(default)s)')
  parser.add_argument('--temperature', type=float, default=0.0, help='(default: %(default)s)')
  parser.add_argument('--turns', type=int, default=3, help='of measurements (default: %(default)s)')
  parser.add_argument('--seconds', type=float, default=5.0, help='of the clients in a turn (default: %(default)s)')
  parser.add_argument(
    '--measure', choices=('rates', 'clients', 'stalls'), default='rates', help='(default: %(default)s)'
  )
  flags = parser.parse_args()
  libraries.quiet()
  libraries.cache_compilations()
  with _bundle(flags) as path:
    measure(Decoder.open(path, verify=False), flags)


def measure(decoder: Decoder, flags: argparse.Namespace) -> None:
  """Prints the measurements."""
  cache_dtype = flags.cache_dtype or ('float32' if flags.bundle else flags.dtype)
  config = DecodeConfig(max_tokens=flags.tokens, temperature=flags.temperature, cache_dtype=cache_dtype)
  prompts = [_prompt(flags.words, seed) for seed in range(flags.clients)]
  scheduler = Scheduler(decoder, max_concurrent=flags.clients, cache_dtype=cache_dtype)
  begun = time.perf_counter()
  scheduler.warm_up()
  print(json.dumps({'engine': decoder.engine.about, 'warm_up_seconds': time.perf_counter() - begun}), flush=True)
  if flags.measure == 'stalls':
    result = while_prompts_are_read(decoder, scheduler, prompts[0], config, flags.seconds)
  elif flags.measure == 'clients':
    result = {'clients': of_clients(scheduler, prompts, config, flags.seconds)}
  else:
    result = rates(decoder, scheduler, prompts, config, flags.turns, flags.seconds)
  print(json.dumps(result), flush=True)
  scheduler.close()


def rates(
  decoder: Decoder, scheduler: Scheduler, prompts: list[str], config: DecodeConfig, turns: int, seconds: float
) -> dict[str, Any]:
  """Returns tokens per second, the medians of several turns: of a plain batch's steps (`batch`), of it with its
  prompts, and of the scheduler while all texts run and no prompt is read (`rows`)."""
  of_batch(decoder, prompts, config)  # compiles
  list(decoder.tokens(prompts[0], config))
  pause = 2 * decoder.stats.first_token_seconds
  measured: dict[str, list[float]] = {}
  for _ in range(turns):
    steps, whole = of_batch(decoder, prompts, config)
    by_row = of_rows(scheduler, prompts, config, seconds, pause)
    for name, rate in (('batch', steps), ('batch_and_prompts', whole), ('rows', by_row)):
      measured.setdefault(name, []).append(rate)
  medians = {name: statistics.median(each) for name, each in measured.items()}
  return medians | {'rows_by_batch': medians['rows'] / medians['batch'], 'turns': measured}


def of_batch(decoder: Decoder, prompts: list[str], config: DecodeConfig) -> tuple[float, float]:
  """Returns the tokens per second of a plain batch: of its steps, and of all with the prompts."""
  decoder.generate_batch(prompts, config)
  stats = decoder.stats
  return 1000 * len(prompts) / stats.milliseconds_per_token, len(prompts) * stats.steps / stats.seconds


def of_rows(scheduler: Scheduler, prompts: list[str], config: DecodeConfig, seconds: float, pause: float) -> float:
  """Returns the tokens per second while all texts run, none is read and none has ended, over this many seconds.

  `pause` is the time that reading the last of the waiting prompts takes at most.
  """
  n_tokens, taken = 0, 0.0
  while taken < seconds:
    begins: list[tuple[float, int]] = []
    ends: list[tuple[float, int]] = []
    ended = threading.Semaphore(0)

    def deliver(event: Event, begins=begins, ends=ends, ended=ended) -> None:
      if not begins:  # no steps until all prompts were read
        while scheduler.status().queued:
          time.sleep(0.01)
        time.sleep(pause)
      here = begins if isinstance(event, Piece) else ends
      here.append((time.perf_counter(), scheduler.status().tokens))
      if here is ends:
        ended.release()

    for prompt in prompts:
      scheduler.submit(prompt, config, deliver)
    for _ in prompts:
      ended.acquire()
    (begun, before), (end, after) = begins[len(prompts)], ends[0]
    n_tokens, taken = n_tokens + after - before, taken + end - begun
  return n_tokens / taken


def of_clients(scheduler: Scheduler, prompts: list[str], config: DecodeConfig, seconds: float) -> float:
  """Returns the tokens per second of as many clients as there are prompts, each of which submits one after another."""
  is_over = threading.Event()

  def deliver(event: Event, ended: threading.Event) -> None:
    if not isinstance(event, Piece):
      ended.set()

  def work(prompt: str) -> None:
    while not is_over.is_set():
      ended = threading.Event()
      scheduler.submit(prompt, config, functools.partial(deliver, ended=ended))
      ended.wait()

  threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
  for thread in threads:
    thread.start()
  time.sleep(0.5)  # until all run
  begun, before = time.perf_counter(), scheduler.status().tokens
  time.sleep(seconds)
  rate = (scheduler.status().tokens - before) / (time.perf_counter() - begun)
  is_over.set()
  for thread in threads:
    thread.join()
  return rate


def while_prompts_are_read(decoder: Decoder, scheduler: Scheduler, prompt: str, config: DecodeConfig, seconds: float):
  """Returns the milliseconds between the tokens of one text, alone and while long prompts are read one after another,
  and the seconds that reading one takes, alone and then."""
  once = dataclasses.replace(config, max_tokens=1)
  long = _prompt(2 * max(decoder.bundle.inputs_length, decoder.bundle.targets_length), 0)
  for _ in range(2):  # the first one compiles
    begun = time.perf_counter()
    list(decoder.tokens(long, once))
    alone = time.perf_counter() - begun
  quiet, _ = _gaps(scheduler, prompt, config, seconds, None)
  busy, read = _gaps(scheduler, prompt, config, seconds, (long, once))
  result = {'prompt_tokens': decoder.stats.input_tokens, 'prompt_seconds': {'alone': alone, 'beside': np.median(read)}}
  for name, gaps in (('alone', quiet), ('beside', busy)):
    result[name] = {f'{share}%_ms': 1000 * float(np.percentile(gaps, share)) for share in (50, 99, 100)}
  return result


def _gaps(
  scheduler: Scheduler, prompt: str, config: DecodeConfig, seconds: float, beside: tuple[str, DecodeConfig] | None
) -> tuple[list[float], list[float]]:
  """Returns the times between the pieces of each of several texts, one after another, and the times that requests
  `beside` take."""
  is_over, gaps, taken = threading.Event(), [], []

  def work(prompt: str, config: DecodeConfig, wanted: list[float], of_pieces: bool) -> None:
    while not is_over.is_set():
      times, ended = [time.perf_counter()], threading.Event()

      def deliver(event: Event, times=times, ended=ended) -> None:
        times.append(time.perf_counter())
        if not isinstance(event, Piece):
          ended.set()

      scheduler.submit(prompt, config, deliver)
      ended.wait()
      wanted.extend(np.diff(times[1:]) if of_pieces else [times[-1] - times[0]])

  threads = [threading.Thread(target=work, args=(prompt, config, gaps, True))]
  threads += [threading.Thread(target=work, args=(*beside, taken, False))] if beside else []
  for thread in threads:
    thread.start()
  time.sleep(seconds)
  is_over.set()
  for thread in threads:
    thread.join()
  return gaps, taken


def _prompt(n_words: int, seed: int) -> str:
  return ' '.join(np.random.default_rng(seed).choice(_TEXT.split(), n_words))


@contextlib.contextmanager
def _bundle(flags: argparse.Namespace) -> Iterator[str]:
  """Yields the given bundle, or a new one with random weights."""
  if flags.bundle:
    yield flags.bundle
    return
  folder = Path(tempfile.mkdtemp(prefix='terraformer-', dir=flags.folder))
  try:
    run, _, _ = load_configs([flags.gin_file], [])
    shapes, numbers = parameter_shapes(run.model), np.random.default_rng(0).uniform(-0.05, 0.05, 1 << 24)
    tokenizer = train_vocabulary([_TEXT] * 20, 320, 10)
    content = Content(run.model, tokenizer, 512, 128, {'weights': 'random'}, dtype=flags.dtype)
    write_bundle(folder / 'bundle', content, lambda name: np.resize(numbers.astype(np.float32), shapes[name].shape))
    yield str(folder / 'bundle')
  finally:
    shutil.rmtree(folder)


if __name__ == '__main__':
  main()
