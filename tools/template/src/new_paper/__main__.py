"""`python -m new_paper` is the command `new-paper`."""

from new_paper.cli import main

main()
