"""`python -m omnirl`, which launchers of several processes need."""

from omnirl.cli import main

main()
