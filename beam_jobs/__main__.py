"""`python -m evalbeam` is `evalbeam`."""

import sys

# The working folder, whose modules must not come before those of the same name that this needs.
if not getattr(sys.flags, "safe_path", False):  # which is new in Python 3.11
    sys.path.append(sys.path.pop(0))

from evalbeam.beam_jobs import cli

cli.start()
