"""Monolayers of well-known structure types, from a lattice constant and free coordinates (section 2.1)."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import numpy as np

from altermag.errors import AltermagError
from altermag.monolayer import Monolayer
from altermag.slabs import Floats

TRIHALIDE_STACKINGS = {
    "AA'": (0.0, 0.0),
    "AB'": (1 / 3, 2 / 3),
    "BA'": (2 / 3, 1 / 3),
    "AC'+": (1 / 3, 0.0),
    "AC'-": (-1 / 3, 0.0),
    "bridge": (0.5, 0.0),
}
"""Shifts of the reversed (operator `mirror`) trihalide. Which shift is called AC' is derived, not quoted: of
all on a mirror line it is the kind that is polar along z and still has the mirror."""


def ptbr3() -> Monolayer:
    """Return the PtBr3 monolayer that we relaxed with GPAW at a = 6.80 Å (an assumed constant), 1 μB on Pt.

    The moment is the nominal one of low-spin d7; the calculation's total is 1.98 μB for the two Pt.
    """
    text = files("altermag").joinpath("data/ptbr3.json").read_text(encoding="utf-8")
    known = json.loads(text)
    return trihalide("Pt", "Br", a=known["a"], x=known["br_x"], height=known["br_height"])


def trihalide(metal: str, anion: str, *, a: float, x: float, height: float, **options: Any) -> Monolayer:
    """Return a monolayer of BiI3 (CrI3) type, layer group p-31m: metals on a honeycomb, 1 μB each.

    `x` is the anion's fraction along a1 and `height` its distance from the metals' plane in Å.
    """
    up, down = [(x, 0.0), (0.0, x), (-x, -x)], [(-x, 0.0), (0.0, -x), (x, x)]
    plane = [(1 / 3, 2 / 3), (2 / 3, 1 / 3), *up, *down]
    heights = [0.0] * 2 + [height] * 3 + [-height] * 3
    return _monolayer(hexagonal(a), plane, heights, [metal] * 2 + [anion] * 6, [1.0] * 2 + [0.0] * 6, options)


def dihalide(
    metal: str, anion: str, *, a: float, height: float, phase: str = "1T", **options: Any
) -> Monolayer:
    """Return a monolayer of type 1T (CdI2, layer group p-3m1) or 2H (MoS2, p-6m2), 1 μB on the metal."""
    places = {"1T": ((1 / 3, 2 / 3), (2 / 3, 1 / 3)), "2H": ((1 / 3, 2 / 3), (1 / 3, 2 / 3))}
    if phase not in places:
        raise AltermagError(f"phase={phase!r}; needed: '1T' or '2H'")
    plane = [(0.0, 0.0), *places[phase]]
    return _monolayer(
        hexagonal(a), plane, [0.0, height, -height], [metal, anion, anion], [1.0, 0.0, 0.0], options
    )


def hexagonal(a: float) -> Floats:
    """Return the in-plane vectors (2, 2) of the hexagonal lattice, 120° apart, in Å."""
    return a * np.array([[1.0, 0.0], [-0.5, np.sqrt(3) / 2]])


def _monolayer(
    plane: Floats,
    places: list[tuple[float, float]],
    heights: list[float],
    species: list[str],
    moments: list[float],
    options: dict[str, Any],
) -> Monolayer:
    c = np.ptp(heights) + 20.0
    lattice = np.zeros((3, 3))
    lattice[:2, :2], lattice[2, 2] = plane, c
    frac = np.c_[np.array(places), 0.5 + np.array(heights) / c]
    return Monolayer.from_arrays(lattice, frac, species, moments, 2, **options)
