"""What the command that decodes prints."""

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
  """Prints what each prompt becomes: alone as it comes, in a batch in one piece.

  Args:
    decoder: with the model.
    prompts: texts.
    config: how tokens are chosen.
    batch_size: prompts that are decoded side by side.
    as_json: one object a line, with input, output and statistics.
    with_stats: whether times go to the standard error.
  """
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
      _note_limits(decoder, stats, config, f'text {number}: ' if batch_size > 1 else '')
    if with_stats:
      _tell_stats(decoder.stats, first_at)


def _write_one(decoder: Decoder, prompt: str, config: DecodeConfig, as_json: bool) -> float | None:
  """Prints one text, and returns when its first piece came, by the age of this process."""
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


def _note_limits(decoder: Decoder, stats: Stats, config: DecodeConfig, name: str) -> None:
  """Says what of a prompt was not read, and that a text ends early."""
  bundle = decoder.bundle
  if stats.dropped_tokens:
    which, trained = ('first', bundle.targets_length) if bundle.continues else ('last', bundle.inputs_length)
    print(
      f'note: {name}the {which} {stats.dropped_tokens} tokens of the input were not read; the model was trained on '
      f'{trained}',
      file=sys.stderr,
    )
  taken = stats.steps if config.beams > 1 else stats.tokens
  if config.max_tokens is not None and stats.room < config.max_tokens and taken == stats.room:
    print(f'note: {name}the text ends after {stats.room} tokens, since the model has no room for more', file=sys.stderr)


def _tell_stats(stats: Stats, first_at: float | None) -> None:
  if not stats.steps:
    print(f'{stats.input_tokens} tokens read, none written', file=sys.stderr)
    return
  process = '' if first_at is None else f' ({first_at:.2f} s after the process began)'
  print(
    f'{stats.input_tokens} tokens read, {stats.tokens} written; first token after {stats.first_token_seconds:.2f} s'
    f'{process}, then {stats.milliseconds_per_token:.2f} ms a token; engine: {stats.engine}',
    file=sys.stderr,
  )


def _seconds_since_start() -> float | None:
  """Wall time of this process by the kernel's clock; None where the system does not tell."""
  with contextlib.suppress(OSError, ValueError, AttributeError):
    ticks = int(Path('/proc/self/stat').read_text().rsplit(')', 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')
  return None
