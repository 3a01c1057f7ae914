"""Decodes from a bundle that is larger than half of a machine's memory: the 17B decoder, its rows in bfloat16.

Weights are random. A child process opens the bundle, none of which the system has in memory, and writes some tokens; it
tells how long that took and how much of the file it holds in memory then. The bundle is removed at the end.

    python benchmarks/large_bundle.py --folder=/var/tmp
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from terraformer.cli import load_configs
from terraformer.config import LanguageModelConfig
from terraformer.data.tokenizer import train_vocabulary
from terraformer.decode.bundle import Content, parameter_shapes, write_bundle

_CHILD = """
import json, sys, time
from terraformer.bench.machine import resident_bytes
from terraformer.config import DecodeConfig
from terraformer.decode.decoder import Decoder
before = resident_bytes()
begun = time.perf_counter()
decoder = Decoder.open(sys.argv[1])
opened = time.perf_counter() - begun
after_open = resident_bytes()
text = ''.join(decoder.generate('the river', DecodeConfig(max_tokens=int(sys.argv[2]), temperature=1.0)))
stats = decoder.stats
print(json.dumps({
  'open_seconds': opened, 'imports_bytes': before, 'opened_bytes': after_open, 'resident_bytes': resident_bytes(),
  'tokens': stats.tokens, 'first_token_seconds': stats.first_token_seconds,
  'ms_per_token': stats.milliseconds_per_token,
}))
"""


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--folder', default=None, help="for the bundle (default: the system's temporary one)")
  parser.add_argument('--layers', type=int, default=6, help='of the decoder (default: %(default)s)')
  parser.add_argument('--tokens', type=int, default=20, help='to write (default: %(default)s)')
  flags = parser.parse_args()
  folder = Path(tempfile.mkdtemp(prefix='terraformer-', dir=flags.folder))
  try:
    n_bytes = _write(folder / 'bundle', flags.layers)
    for kind in ('cold', 'warm'):
      if kind == 'cold':
        _forget(folder / 'bundle')
      done = subprocess.run(
        [sys.executable, '-c', _CHILD, folder / 'bundle', str(flags.tokens)], check=True, stdout=subprocess.PIPE
      )
      print(json.dumps({'system_cache': kind, 'file_bytes': n_bytes} | json.loads(done.stdout)), flush=True)
  finally:
    shutil.rmtree(folder)


def _write(path: Path, n_layers: int) -> int:
  """Writes the bundle and returns the bytes of its files."""
  run, _, _ = load_configs(['gin_configs/models/terraformer_17b.gin'], [])
  model = LanguageModelConfig(
    vocab_size=run.model.vocab_size,
    max_length=run.model.max_length,
    n_layers=n_layers,
    n_attentions=run.model.n_decoder_attentions,
    decoder=run.model.decoder,
    output=run.model.output,
    residual=run.model.residual,
  )
  tokenizer = train_vocabulary(['the river runs to the sea and the sea is wide'] * 20, 400, 10)
  shapes = parameter_shapes(model)
  numbers = np.random.default_rng(0).uniform(-0.05, 0.05, 1 << 24).astype(np.float32)

  def read(name: str) -> np.ndarray:
    dtype = shapes[name].dtype
    return np.resize(numbers.astype(dtype), shapes[name].shape)

  begun = time.perf_counter()
  content = Content(model, tokenizer, 64, 64, {'weights': 'random'}, dtype='bfloat16')
  write_bundle(path, content, read, show_progress=True)
  n_bytes = sum(file.stat().st_size for file in path.iterdir())
  print(f'{n_bytes / 1e9:.1f} GB written in {time.perf_counter() - begun:.0f} s', file=sys.stderr, flush=True)
  return n_bytes


def _forget(path: Path) -> None:
  """Asks the system to drop the files from its memory."""
  for file in path.iterdir():
    with file.open('rb') as opened:
      os.fsync(opened.fileno())
      os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == '__main__':
  main()
