"""`python -m implicit_prm` is the command `implicit-prm`."""

from implicit_prm.cli import main

main()
