"""`python -m toedit` is the command `toedit`."""

from toedit.cli import main

main()
