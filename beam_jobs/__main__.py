"""`python -m evalbeam` is `evalbeam`."""

from evalbeam.beam_jobs import cli

cli.main(prog_name="evalbeam")
