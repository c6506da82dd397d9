"""`python -m memoryformer`."""

from memoryformer.cli import main

if __name__ == "__main__":
    main()
