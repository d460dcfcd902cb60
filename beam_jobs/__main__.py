"""`python -m beam_jobs` is `evalbeam`."""

from beam_jobs import cli

cli.main(prog_name="evalbeam")
