"""Imports a large checkpoint of trax's format and decodes with it, and measures time and memory.

  python benchmarks/trax_import.py --size=medium [--folder=/var/tmp] [--dtype=bfloat16] [--tokens=20]

The checkpoint has random weights (see trax_checkpoint.py). Each step is a process of its own, whose largest resident
memory is printed. `medium` then reads an article of 15,360 tokens and writes some; `--run` imports a run as well. All
that was written is removed at the end.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
_KIB = 1024


def _measured(name: str, command: Sequence[str]) -> str:
  """Runs a command and returns a line with its time and its largest resident memory."""
  begun = time.perf_counter()
  process = subprocess.Popen([sys.executable, *command], cwd=ROOT)
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, command)
  return f'{name}: {time.perf_counter() - begun:.0f} s, peak memory {usage.ru_maxrss * _KIB / 1e9:.2f} GB'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--size', choices=('small', 'medium', 'large'), default='medium')
  parser.add_argument('--folder', default=None, help="for all files (default: the system's temporary one)")
  parser.add_argument('--dtype', default='bfloat16', help='of the bundle (default: %(default)s)')
  parser.add_argument('--tokens', type=int, default=20, help='to write; 0 for none (default: %(default)s)')
  parser.add_argument('--run', action='store_true', help='import a run as well')
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory(prefix='terraformer-', dir=flags.folder) as scratch:
    folder = Path(scratch)
    checkpoint, bundle, article = folder / 'checkpoint', folder / 'bundle', folder / 'article.txt'
    lines = [_measured('nothing but imports', ['-c', 'import terraformer.importing'])]
    subprocess.run(
      [sys.executable, HERE / 'trax_checkpoint.py', f'--size={flags.size}', checkpoint], check=True, cwd=ROOT
    )
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    lines.append(f'checkpoint: {size / 1e9:.2f} GB')
    importing = ['-m', 'terraformer', 'import', f'--checkpoint={checkpoint}']
    lines.append(_measured('bundle', [*importing, f'--output={bundle}', f'--dtype={flags.dtype}']))
    if flags.run:
      lines.append(_measured('run', [*importing, f'--workdir={folder / "run"}']))
    if flags.tokens:
      rng = random.Random(0)
      article.write_text(' '.join(str(rng.randrange(100, 700)) for _ in range(15_360)))
      decode = ['-m', 'terraformer', 'decode', f'--bundle={bundle}', f'--input_file={article}', '--stats']
      lines.append(_measured('decode', [*decode, f'--max_tokens={flags.tokens}', '--cache_dtype=bfloat16']))
    print('\n'.join(lines))


if __name__ == '__main__':
  main()
