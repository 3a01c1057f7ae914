"""`python -m terraformer` is the command `terraformer`."""

import sys

from terraformer.cli import main

sys.exit(main())
