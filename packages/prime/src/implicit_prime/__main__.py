"""`python -m implicit_prime` is the command `implicit-prime`."""

from implicit_prime.cli import main

main()
