"""`python -m medxpertqa` is the command `medxpertqa`."""

from medxpertqa.cli import main

main()
