"""`python -m proteus_omics` is the command `proteus-omics`."""

from proteus_omics.cli import main

main()
