"""`python -m memoryformer` is the command `memoryformer`."""

from memoryformer.cli import main

main()
