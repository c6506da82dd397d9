"""`python -m lpa` is the command `lpa`."""

from lpa.cli import main

main()
