"""The verb `reproduce` of the command is tenfold's, so that all papers have the same options."""

from tenfold.cli import reproduce

__all__ = ["reproduce"]
