"""`python -m tokswap`."""

from tokswap.cli import main

main(prog_name="tokswap")
