"""`python -m slicer_host`."""

import sys

from slicer_host.command_line import main

sys.exit(main())
