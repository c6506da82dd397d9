"""`python -m proteus_omics`."""

from proteus_omics.cli import main

main()
