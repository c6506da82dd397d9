"""Which states are filled: the Fermi level of a number of electrons, and occupations by energy alone."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit

from altermag.errors import AltermagError

DEGENERATE = 1e-9
"""Levels this close (eV) to the Fermi level share their electrons, so that a filling keeps the symmetry."""


@dataclass(frozen=True)
class Filling:
    """The occupation of a state of energy E, a function of E alone.

    `fermi` and `kT` are in eV; at kT = 0 the levels at the Fermi level itself are filled to `at_fermi`.
    """

    fermi: float
    kT: float = 0.0
    at_fermi: float = 0.5

    @classmethod
    def of(cls, energies: ArrayLike, n_electrons: float, n_k: int, kT: float = 0.0) -> Filling:
        """Fill the states of `n_k` k points (any shape, eV) with `n_electrons` a cell.

        In an insulator at kT = 0 the Fermi level is the middle of the gap. Raises `AltermagError` if there
        are fewer states than electrons, or none to fill.
        """
        levels = np.sort(np.ravel(np.asarray(energies, dtype=float)))
        wanted, states = n_electrons * n_k, len(levels) / n_k
        if not 0 < n_electrons < states:
            raise AltermagError(
                f"n_electrons is {n_electrons:g}, with {states:g} states a cell: a Fermi level needs "
                "more than none and fewer than the states"
            )
        if kT > 0:
            margin = 40 * kT  # expit(-40) is below the rounding of 1
            fermi = brentq(
                lambda mu: expit((mu - levels) / kT).sum() - wanted,
                levels[0] - margin,
                levels[-1] + margin,
                xtol=1e-14,
            )
            return cls(float(fermi), kT)
        below = min(int(np.floor(wanted + 1e-9)), len(levels) - 1)  # whole levels that are filled
        filled, next_level = levels[max(below - 1, 0)], levels[below]
        if abs(wanted - below) < 1e-6 and next_level - filled > 2 * DEGENERATE:
            return cls(float((filled + next_level) / 2))
        at = np.abs(levels - next_level) <= DEGENERATE
        return cls(
            float(next_level), 0.0, float((wanted - (levels < next_level - DEGENERATE).sum()) / at.sum())
        )

    def occupations(self, energies: Any, xp: ModuleType = np) -> Any:
        """Of the shape of `energies`, from 0 to 1; `xp` is numpy or torch."""
        above = energies - self.fermi
        if self.kT > 0:
            return (1 - xp.tanh(above / (2 * self.kT))) / 2
        one = xp.ones_like(above)  # of its dtype: torch makes float32 of a number
        filled = xp.where(above < -DEGENERATE, one, self.at_fermi * one)
        return xp.where(above > DEGENERATE, 0 * one, filled)
