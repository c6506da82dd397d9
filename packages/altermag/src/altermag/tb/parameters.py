"""The numbers of a model: on-site energies, the radial law of hoppings, two-centre integrals (section 2.7).

The defaults exist for every element and make a *model*, never a prediction: they are there so that a
structure is shown with all of its symmetry and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from scipy.constants import angstrom, e, hbar, m_e

from altermag.errors import AltermagError
from altermag.slabs import check_elements

HARTREE_AREA = hbar**2 / m_e / e / angstrom**2
"""ħ²/m = 7.62 eV Å²."""

HARRISON = {
    "sss": -1.40,
    "sps": 1.84,
    "pps": 3.24,
    "ppp": -0.81,
    "sds": -0.80,
    "pds": -0.75,
    "pdp": 0.34,
    "dds": -1.04,
    "ddp": 0.56,
}
"""Harrison's universal integrals in units of ħ²/(m r²); those of d with a d radius of 0.4 bond lengths."""

SHELL_DEPTH = {"s": 1.0, "p": 0.5, "d": 0.7}
"""Default on-site energies in units of −ħ²/(2 m R²), R the covalent radius: smaller atoms hold tighter."""


@dataclass(frozen=True)
class Parameters:
    """What a model is made of besides its structure; whatever is left out has a default for every element.

    `onsite`: by element an energy in eV, or one by shell {"s": .., "p": .., "d": ..}.
    `bonds`: by pair of elements (t0, r0, ℓ) of t(r) = t0 exp[−(r − r0)/ℓ] (1 − (r/r_c)²)² for r < r_c, in eV,
    Å, Å. By default r0 is the sum of the covalent radii, t0 = ħ²/(m r0²) and ℓ = r0/2, which is Harrison's
    1/r² law in value and slope at r0.
    `integrals`: the two-centre integrals in units of t(r), by default `HARRISON`, and {"sss": 1} where there
    are s orbitals alone, whose hopping is t(r) itself. `cutoff`: r_c in Å.
    A table may have more elements than a structure; what is no element raises `AltermagError`.
    """

    onsite: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict)
    bonds: Mapping[tuple[str, str], tuple[float, float, float]] = field(default_factory=dict)
    integrals: Mapping[str, float] | None = None
    cutoff: float = 7.0

    def __post_init__(self) -> None:
        if not self.cutoff > 0:
            raise AltermagError(f"the cutoff of hoppings is a positive length, not {self.cutoff} Å")
        check_elements(self.onsite, "onsite")
        check_elements(chain.from_iterable(self.bonds), "bonds")
        for pair, law in self.bonds.items():
            if len(law) != 3 or not all(np.isfinite(law)) or law[2] <= 0:
                raise AltermagError(
                    f"bonds[{pair}] is {law}: give (t0 in eV, r0 in Å, decay length > 0 in Å)"
                )

    def integrals_of(self, orbitals: str) -> Mapping[str, float]:
        """The two-centre integrals of a model of these orbitals."""
        if self.integrals is not None:
            return self.integrals
        return {"sss": 1.0} if orbitals == "s" else HARRISON

    def onsite_energy(self, element: str, shell: str) -> float:
        """The on-site energy of a shell of an element in eV."""
        given = self.onsite.get(element)
        if isinstance(given, Mapping):
            given = given.get(shell)
        if given is not None:
            return float(given)
        return float(-SHELL_DEPTH[shell] * HARTREE_AREA / (2 * radius(element) ** 2))

    def bond(self, first: str, second: str) -> tuple[float, float, float]:
        """(t0, r0, ℓ) of a pair of elements in either order, in eV, Å, Å."""
        for pair in ((first, second), (second, first)):
            if pair in self.bonds:
                return self.bonds[pair]
        r0 = radius(first) + radius(second)
        return HARTREE_AREA / r0**2, r0, r0 / 2

    def radial(self, first: str, second: str, r: NDArray[np.float64]) -> NDArray[np.float64]:
        """t(r) in eV of bonds of length `r` (Å), zero beyond the cutoff and smooth there."""
        t0, r0, decay = self.bond(first, second)
        return t0 * np.exp(-(r - r0) / decay) * np.clip(1 - (r / self.cutoff) ** 2, 0, None) ** 2


def radius(element: str) -> float:
    """The covalent radius in Å. Raises `AltermagError` for what is no element."""
    if element not in atomic_numbers:
        raise AltermagError(f"{element!r} is no chemical element")
    return float(covalent_radii[atomic_numbers[element]])
