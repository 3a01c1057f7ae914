"""Prints the output of `terraformer decode`."""

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from terraformer.config import DecodeConfig
from terraformer.decode.decoder import Decoder, Stats


def write_all(
  decoder: Decoder, prompts: Sequence[str], config: DecodeConfig, batch_size: int, as_json: bool, with_stats: bool
) -> None:
  """Prints the text for each prompt: piece by piece, or in one piece if prompts are decoded in batches.

  Args:
    decoder: the decoder to use.
    prompts: the prompts.
    config: how tokens are chosen.
    batch_size: number of prompts to decode together.
    as_json: whether to print one JSON object per line, with input, output and statistics.
    with_stats: whether to print times to the standard error.
  """
  is_told = False
  for first in range(0, len(prompts), batch_size):
    first_at = None
    if batch_size > 1:
      batch = prompts[first : first + batch_size]
      texts = decoder.generate_batch(batch, config)
      for prompt, text, stats in zip(batch, texts, decoder.text_stats, strict=True):
        print(_row(prompt, text, stats) if as_json else text, flush=True)
    else:
      first_at = _write_one(decoder, prompts[first], config, as_json)
    for number, stats in enumerate(decoder.text_stats, first + 1):
      is_told |= _note_limits(decoder, stats, config, f'text {number}: ' if batch_size > 1 else '')
    if with_stats:
      _tell_stats(decoder.stats, first_at)
  if config.max_tokens is not None and prompts and decoder.stats.room < config.max_tokens and not is_told:
    room = decoder.stats.room
    print(f'note: the model has positions for {room} new tokens, fewer than {config.max_tokens}', file=sys.stderr)


def _write_one(decoder: Decoder, prompt: str, config: DecodeConfig, as_json: bool) -> float | None:
  """Prints one text, and returns the age of this process in seconds when its first piece came."""
  written, first_at = [], None
  with contextlib.closing(decoder.generate(prompt, config)) as pieces:
    for piece in pieces:
      first_at = first_at or _seconds_since_start()
      written.append(piece)
      if not as_json:
        print(piece, end='', flush=True)
  print(_row(prompt, ''.join(written), decoder.stats) if as_json else '', flush=True)
  return first_at


def _row(prompt: str, text: str, stats: Stats) -> str:
  return json.dumps({'input': prompt, 'output': text, 'stats': dataclasses.asdict(stats)}, ensure_ascii=False)


def _note_limits(decoder: Decoder, stats: Stats, config: DecodeConfig, name: str) -> bool:
  """Notes tokens of a prompt that were not read, and a text that ends early; returns whether one does."""
  bundle = decoder.bundle
  if stats.dropped_tokens:
    which, trained = ('first', bundle.targets_length) if bundle.continues else ('last', bundle.inputs_length)
    print(
      f'note: {name}the {which} {stats.dropped_tokens} tokens of the input were not read; the model was trained on at '
      f'most {trained}',
      file=sys.stderr,
    )
  taken = stats.steps if config.beams > 1 else stats.tokens
  ends_early = config.max_tokens is not None and stats.room < config.max_tokens and taken == stats.room
  if ends_early:
    print(f'note: {name}the text ends after {stats.room} tokens; the model has no more positions', file=sys.stderr)
  return ends_early


def _tell_stats(stats: Stats, first_at: float | None) -> None:
  if not stats.steps:
    print(f'{stats.input_tokens} tokens read, 0 written', file=sys.stderr)
    return
  process = '' if first_at is None else f' ({first_at:.2f} s after the process started)'
  print(
    f'{stats.input_tokens} tokens read, {stats.tokens} written; first token after {stats.first_token_seconds:.2f} s'
    f'{process}, then {stats.milliseconds_per_token:.2f} ms per token; engine: {stats.engine}',
    file=sys.stderr,
  )


def _seconds_since_start() -> float | None:
  """Returns the age of this process by the kernel's clock; None if the system does not provide it."""
  with contextlib.suppress(OSError, ValueError, AttributeError):
    ticks = int(Path('/proc/self/stat').read_text().rsplit(')', 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')
  return None
