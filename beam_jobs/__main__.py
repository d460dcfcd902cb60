"""`python -m evalbeam` is `evalbeam`."""

import sys

# The working folder, whose modules would come before those of the same name that this needs.
if not getattr(sys.flags, "safe_path", False):  # which is new in Python 3.11
    del sys.path[0]

from evalbeam.beam_jobs import cli

cli.start()
