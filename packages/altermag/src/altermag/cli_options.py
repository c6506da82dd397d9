"""What several verbs of the `altermag` command share: options, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from altermag.errors import AltermagError

Structure = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A structure: .cif, .mcif, POSCAR, .json, .xyz, what ASE reads."),
]
Moments = Annotated[
    Optional[str],  # noqa: UP045  # typer reads it at run time
    typer.Option(
        "--magmoms", help="In μB, by element, Pt=1,Br=0, or a number an atom, 1,1,0,0; else the file's own."
    ),
]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Change a value: key=value; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def moments_of(text: str | None) -> dict[str, float] | list[float] | None:
    """Return what --magmoms says. Raises `AltermagError` where it is neither form."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    try:
        if "=" in text:
            pairs = [part.partition("=") for part in parts]
            found = {name: float(value) for name, _, value in pairs}
        else:
            return [float(part) for part in parts]
    except ValueError as error:
        raise AltermagError(
            f"--magmoms {text}: write Pt=1,Br=0 or a number for each atom, 1,1,0,0"
        ) from error
    if len(found) < len(pairs):
        raise AltermagError(f"--magmoms {text}: an element is named twice")
    return found


def assignments(entries: Sequence[str] | None) -> dict[str, Any]:
    """Return key=value, the value as JSON or else as it is. Raises `AltermagError` for an entry without =."""
    found: dict[str, Any] = {}
    for entry in entries or ():
        key, sign, value = entry.partition("=")
        if not sign:
            raise AltermagError(f"--set {entry}: write key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
