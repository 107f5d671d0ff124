"""`python -m sesrelay`: the same as the command `sesrelay`."""

import sys

from sesrelay.cli import main

sys.exit(main())
