"""Write text with a bundle: the command `terraformer decode`, for launchers that start a script."""

import sys

from terraformer.__main__ import main

if __name__ == '__main__':
  sys.exit(main(['decode', *sys.argv[1:]]))
