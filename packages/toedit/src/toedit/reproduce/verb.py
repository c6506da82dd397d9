"""What the `toedit` command takes from the workspace: the small prior, and the verb `reproduce`."""

from __future__ import annotations

from tenfold.cli import reproduce
from tenfold.data import get

__all__ = ["reproduce", "small_prior"]


def small_prior() -> str:
    """The folder of SmolLM2-135M, fetched if need be. Raises tenfold's errors if it cannot be had."""
    return str(get("smollm2-135m"))
