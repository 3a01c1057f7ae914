"""Measures what the paper claims about quality, at a size that two CPU cores can train.

  python benchmarks/paper.py --list [--scale=cpu|gpu]
  python benchmarks/paper.py --folder=DIR [--scale=cpu|gpu] [--only=NAME,...] [--hours=H]
  python benchmarks/paper.py --page

The experiments are listed in claims/experiments.py. Each is a training run in DIR, then a measurement, which is written
to benchmarks/paper/NAME.json. An experiment with such a file is done, and one that was stopped, or killed, resumes bit
for bit. `--page` writes docs/paper.md and its charts from the files.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Python puts the folder of the script there, not the root

from benchmarks.claims.command import main  # noqa: E402

if __name__ == '__main__':
  sys.exit(main())
