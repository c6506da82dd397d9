"""`python -m altermag` is the command `altermag`."""

from altermag.cli import main

main()
