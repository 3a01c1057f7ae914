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
  decoder: Decoder, sources: Sequence[str], config: DecodeConfig, batch_size: int, as_json: bool, with_stats: bool
) -> None:
  """Prints what each source becomes: alone as it comes, in a batch in one piece.

  Args:
    decoder: with the model.
    sources: texts.
    config: how tokens are chosen.
    batch_size: sources that are decoded side by side.
    as_json: one object a line, with input, output and statistics.
    with_stats: whether times go to the standard error.
  """
  for first in range(0, len(sources), batch_size):
    if batch_size > 1:
      batch = sources[first : first + batch_size]
      for source, text in zip(batch, decoder.generate_batch(batch, config), strict=True):
        print(_row(source, text, decoder.stats) if as_json else text, flush=True)
      _tell_stats(decoder.stats, config, None, with_stats)
    else:
      _write_one(decoder, sources[first], config, as_json, with_stats)


def _write_one(decoder: Decoder, source: str, config: DecodeConfig, as_json: bool, with_stats: bool) -> None:
  written, first_at = [], None
  with contextlib.closing(decoder.generate(source, config)) as pieces:
    for piece in pieces:
      first_at = first_at or _seconds_since_start()
      written.append(piece)
      if not as_json:
        print(piece, end='', flush=True)
  print(_row(source, ''.join(written), decoder.stats) if as_json else '', flush=True)
  _tell_stats(decoder.stats, config, first_at, with_stats)


def _row(source: str, text: str, stats: Stats) -> str:
  return json.dumps({'input': source, 'output': text, 'stats': dataclasses.asdict(stats)}, ensure_ascii=False)


def _tell_stats(stats: Stats, config: DecodeConfig, first_at: float | None, wanted: bool) -> None:
  if stats.dropped_tokens:
    print(
      f'note: the last {stats.dropped_tokens} tokens of the input were not read; the model was trained on '
      f'{stats.input_tokens}',
      file=sys.stderr,
    )
  if stats.steps == stats.room and config.max_tokens is not None and stats.room < config.max_tokens:
    print(f'note: the text ends after {stats.room} tokens, since the model has no room for more', file=sys.stderr)
  if wanted and not stats.steps:
    print(f'{stats.input_tokens} tokens read, none written', file=sys.stderr)
  elif wanted:
    process = '' if first_at is None else f' ({first_at:.2f} s after the process began)'
    print(
      f'{stats.input_tokens} tokens read, {stats.tokens} written; first token after {stats.first_token_seconds:.2f} s'
      f'{process}, then {stats.milliseconds_per_token:.2f} ms a token',
      file=sys.stderr,
    )


def _seconds_since_start() -> float | None:
  """Wall time of this process by the kernel's clock; None where the system does not tell."""
  with contextlib.suppress(OSError, ValueError, AttributeError):
    ticks = int(Path('/proc/self/stat').read_text().rsplit(')', 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')
  return None
