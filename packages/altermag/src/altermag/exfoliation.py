"""Monolayers out of layered crystals: bonds by ASE, moments kept, vacuum added (section 6.5)."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry.dimensionality import analyze_dimensionality
from ase.geometry.dimensionality.isolation import isolate_monolayer, traverse_graph

from altermag.cells import reduced
from altermag.errors import AltermagError
from altermag.io import Crystal
from altermag.monolayer import Monolayer
from altermag.slabs import collinear, site_moments

VACUUM = 20.0
"""Å of empty space around a monolayer."""


def exfoliate(crystal: Crystal, *, symprec: float = 1e-2, mag_tol: float = 0.02) -> list[Monolayer]:
    """Return the unlike magnetic monolayers of a layered crystal, each in its primitive cell.

    What is bonded is decided by ASE's rank determination (Larsen et al., Phys. Rev. Materials 3, 034003). A
    structure that is one layer in vacuum gives that layer. Moments are those of the crystal.
    Raises `AltermagError` for a crystal that is not layered (saying what it is), has no magnetic layer, no
    moments, or noncollinear ones.
    """
    moments = collinear(site_moments(crystal.species, crystal.magmoms))
    atoms = Atoms(list(crystal.species), scaled_positions=crystal.frac_coords, cell=crystal.lattice, pbc=True)
    best = analyze_dimensionality(atoms, method="RDA")[0]
    if best.dimtype != "2D":
        raise AltermagError(
            f"the crystal is not layered: its bonds are {best.dimtype} (score {best.score:.2f})"
        )
    found: list[Monolayer] = []
    for places, layer in _layers(atoms, (best.a + best.b) / 2 if np.isfinite(best.b) else best.a + 0.1):
        if not moments[places].any():
            continue
        monolayer = Monolayer.from_arrays(
            *layer,
            [crystal.species[place] for place in places],
            moments[places],
            2,
            symprec=symprec,
            mag_tol=mag_tol,
            whole=True,
        ).primitive
        if not any(_alike(monolayer, other) for other in found):
            found.append(monolayer)
    if not found:
        raise AltermagError("no layer of the crystal has moments")
    return found


def _layers(atoms: Atoms, cutoff: float) -> list[tuple[list[int], tuple[Any, Any]]]:
    """Return for every layer the atoms it is made of, and its lattice and fractional coordinates."""
    components, visited, ranks = traverse_graph(atoms, cutoff)
    numbered = atoms.copy()
    numbered.numbers = np.arange(len(atoms))  # ASE keeps nothing else of an atom
    found = []
    for component, places in visited.items():
        if ranks[component] != 2:
            continue
        layer = isolate_monolayer(numbered, components, component, sorted(places))
        cell, positions = np.array(layer.cell), layer.positions
        height = float(np.ptp(positions[:, 2]))
        cell[:2, :2] = reduced(cell[:2, :2])
        cell[2] = (0.0, 0.0, height + VACUUM)
        frac = positions @ np.linalg.inv(cell)
        found.append((layer.numbers.tolist(), (cell, frac)))
    return found


def _alike(one: Monolayer, other: Monolayer) -> bool:
    """Whether two layers of a crystal are the same material in the same order."""
    return (
        sorted(one.species) == sorted(other.species)
        and one.layer_group == other.layer_group
        and len(one.operations) == len(other.operations)
        and np.allclose(np.sort(np.abs(one.magmoms)), np.sort(np.abs(other.magmoms)), atol=0.1)
    )
