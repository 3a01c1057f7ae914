"""Kills `terraformer prepare` again and again, and compares the end, byte for byte, with an undisturbed one's.

usage: python benchmarks/prepare_kills.py [--kills=10] [--seed=0] [--processes=1]

The data are a folder of JSON lines with random words, in 48 parts. SIGKILL comes at a random time after a process has
begun to write parts, whatever it is doing then, or, each third time, while it starts. Prints one line a kill, and exits
with status 1 unless all files are the same in the end.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PARTS, EXAMPLES = 48, 240_000
GIN = """
from __gin__ import dynamic_registration
from terraformer import config

config.DataConfig.source = @config.LocalFolderConfig()
config.DataConfig.inputs_length = 64
config.DataConfig.targets_length = 16
config.TokenizerConfig.size = 1000
"""


def write_inputs(folder: Path, rng: random.Random) -> Path:
  """A gin file, beside the folder of texts that it names."""
  words = [''.join(rng.choices('abcdefghijklmnopqrstuvwxyz', k=rng.randint(2, 8))) for _ in range(500)]
  (folder / 'texts').mkdir()
  with (folder / 'texts' / 'train.jsonl').open('w') as file:
    for _ in range(EXAMPLES):
      row = {'inputs': ' '.join(rng.choices(words, k=rng.randint(5, 60))), 'targets': ' '.join(rng.choices(words, k=8))}
      file.write(json.dumps(row) + '\n')
  path = folder / 'data.gin'
  lines = f"config.LocalFolderConfig.directory = '{folder}/texts'\nconfig.DataConfig.parts = {PARTS}\n"
  path.write_text(GIN + lines)
  return path


def start(gin: Path, directory: Path, share: str) -> subprocess.Popen:
  binding = f"--gin_bindings=config.DataConfig.directory = '{directory}'"
  command = [sys.executable, '-m', 'terraformer', 'prepare', f'--gin_file={gin}', binding, f'--shard={share}']
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
  # A group of its own: the command does its work in a child, which is to die with it.
  return subprocess.Popen(
    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
  )


def kill(process: subprocess.Popen) -> None:
  """SIGKILL to a process and to its children, which have sessions of their own."""
  children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
  for pid in (process.pid, *map(int, children)):
    os.kill(pid, signal.SIGKILL)
  process.wait()


def finished(directory: Path) -> int:
  return len([path for path in directory.glob('.local_folder.partial-*/part-*') if not path.suffix])


def files(directory: Path) -> dict[str, bytes]:
  """What is prepared; where it lies is its own affair."""
  found = {path.name: path.read_bytes() for path in (directory / 'local_folder').iterdir()}
  return found | {'manifest.json': found['manifest.json'].replace(str(directory).encode(), b'')}


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--kills', type=int, default=10)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--processes', type=int, default=1)
  flags = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    return run(Path(temporary), flags.kills, flags.processes, random.Random(flags.seed))


def run(folder: Path, kills: int, processes: int, rng: random.Random) -> int:
  gin, undisturbed, killed = write_inputs(folder, rng), folder / 'undisturbed', folder / 'killed'
  begun = time.monotonic()
  process = start(gin, undisturbed, '0/1')
  _, errors = process.communicate()
  if process.returncode:
    print(errors, file=sys.stderr)
    return 1
  print(f'undisturbed: {PARTS} parts of {EXAMPLES:,} examples in {time.monotonic() - begun:.1f} s', flush=True)
  number = 0
  while number < kills:
    group = [start(gin, killed, f'{index}/{processes}') for index in range(processes)]
    begun, before = time.monotonic(), finished(killed)
    while number % 3 and finished(killed) == before and all(one.poll() is None for one in group):
      time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.6) if number % 3 else rng.uniform(1, 12))
    if any(one.poll() is not None for one in group):
      print(f'kill {number + 1}: a process had ended before it; the kills that came count')
      break
    for one in group:
      kill(one)
    number += 1
    print(
      f'kill {number:2}: {time.monotonic() - begun:5.1f} s after the start, parts {before:2} before and '
      f'{finished(killed):2} after',
      flush=True,
    )
  group = [start(gin, killed, f'{index}/{processes}') for index in range(processes)]
  failures = [errors for one in group if (errors := one.communicate()[1]) and one.returncode]
  print(*failures, sep='\n', end='', file=sys.stderr)
  one, other = files(undisturbed), files(killed)
  different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
  print(f'{number} kills; files that differ from the undisturbed: {len(different)} of {len(one)}')
  return int(bool(failures or different or number < kills))


if __name__ == '__main__':
  sys.exit(main())
