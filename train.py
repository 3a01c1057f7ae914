"""Train a model: the command `terraformer train`, for launchers that start a script."""

import sys

from terraformer.__main__ import main

if __name__ == '__main__':
  sys.exit(main(['train', *sys.argv[1:]]))
