"""The engines by name: modules that know how to run a code, or how to write its inputs."""

from __future__ import annotations

from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from altermag.errors import AltermagError
from altermag.io import Layered

GROUP = "altermag.engines"


class Engine(Protocol):
    """What the module behind an entry point has; one that can run here has `run` too, as `dft.gpaw` does."""

    PRESETS: Any

    def write_inputs(self, layered: Layered, out: str | PathLike[str], preset: str = ...) -> list[Path]:
        """Write all that the code needs into the folder and return the files."""


def engine_names() -> list[str]:
    """Return the names of the installed engines, sorted; nothing is imported."""
    return sorted(metadata.entry_points(group=GROUP).names)


def engine(name: str) -> Engine:
    """Import and return an engine. Raises `AltermagError`, listing the engines, if none has that name."""
    found = metadata.entry_points(group=GROUP, name=name)
    if not found:
        raise AltermagError(f"there is no engine {name!r}; there are: {', '.join(engine_names())}")
    return next(iter(found)).load()
