"""`python -m fope` is the command `fope`."""

from fope.cli import main

main()
