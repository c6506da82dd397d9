"""`python -m omnirl` is the command `omnirl`."""

from omnirl.cli import main

main()
