"""Versions of what a run's numbers depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Library to version, Python's own among them."""
    names = ("anndata", "numpy", "pandas", "scipy", "scikit-learn", "proteus-omics")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
