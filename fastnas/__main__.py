"""`python -m fastnas`."""

from fastnas.cli import main

main(prog_name="fastnas")
