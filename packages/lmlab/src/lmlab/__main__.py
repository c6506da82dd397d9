"""`python -m lmlab` is the command `lmlab`."""

from lmlab.cli import main

main()
