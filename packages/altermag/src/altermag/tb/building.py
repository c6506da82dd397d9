"""The model of a structure: made of its species, geometry and moments alone, it has its symmetry (2.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from altermag.errors import AltermagError
from altermag.slabs import check_elements
from altermag.tb.model import Model
from altermag.tb.parameters import Parameters
from altermag.tb.slater_koster import SHELL_SLICES, SHELLS, angular_momentum, two_centre

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


class Layered(Protocol):
    """What a model is built from: a `Bilayer` or a `Monolayer`, vacuum along the third lattice vector."""

    @property
    def lattice(self) -> Array: ...  # noqa: D102
    @property
    def frac_coords(self) -> Array: ...  # noqa: D102
    @property
    def species(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def magmoms(self) -> Array: ...  # noqa: D102


def from_bilayer(
    obj: Layered,
    orbitals: str = "s",
    params: Parameters | None = None,
    exchange: float = 1.0,
    soc: float | Mapping[str, float] = 0.0,
    neel: ArrayLike = (0, 0, 1),
    field: float = 0.0,
) -> Model:
    """The tight-binding model of a bilayer (or monolayer), section 2.7.

    `orbitals` is "s", "p", "sp" or "spd", on every atom. `exchange` J in eV/μB adds −J m_i n̂·σ on the atoms
    with moment m_i, n̂ the direction `neel`; `soc` λ in eV, one number or one by element, adds λ L·S in every
    p and d shell; `field` in V/Å, along z, adds e E_z z, z from the mid-plane.
    Without `soc` the model is collinear, H of spin up (along n̂) and H of spin down, and `neel` has no part
    in it; with `soc` it is one H of spinors, 2n states.
    Raises `AltermagError` for another set of orbitals, `soc` without p or d or of an element that is not
    there, or a `neel` that is no direction.
    """
    params = params or Parameters()
    if orbitals not in SHELLS:
        raise AltermagError(f"orbitals is {orbitals!r}; it may be {', '.join(map(repr, SHELLS))}")
    direction = np.asarray(neel, dtype=float)
    if direction.shape != (3,) or not np.linalg.norm(direction) > 0 or not np.isfinite(direction).all():
        raise AltermagError(f"neel={neel!r}; needed: a direction, three numbers that are not all 0")
    shells = SHELLS[orbitals]
    places = np.concatenate([np.arange(9)[SHELL_SLICES[shell]] for shell in shells])
    species, n = list(obj.species), len(places)
    numbers = [exchange, field, *(soc.values() if isinstance(soc, Mapping) else [soc])]
    if not np.isfinite(numbers).all():
        raise AltermagError(f"exchange={exchange}, soc={soc}, field={field}; needed: finite numbers")
    if isinstance(soc, Mapping):
        check_elements(soc, "soc", species)
    coupling = np.array([soc.get(name, 0.0) if isinstance(soc, Mapping) else soc for name in species])
    if coupling.any() and shells == ("s",):
        raise AltermagError("s orbitals have no spin-orbit coupling; needed: orbitals='p', 'sp' or 'spd'")

    cells, matrices = _hoppings(obj, places, params, params.integrals_of(orbitals))
    home = int(np.flatnonzero((cells == 0).all(1))[0])
    widths = [SHELL_SLICES[shell].stop - SHELL_SLICES[shell].start for shell in shells]
    energies = [
        np.repeat([params.onsite_energy(name, shell) for shell in shells], widths) for name in species
    ]
    matrices[home] += np.diag(np.concatenate(energies))
    zeeman = -exchange * np.repeat(np.asarray(obj.magmoms, dtype=float), n)
    heights = np.repeat((obj.frac_coords[:, 2] - 0.5) * obj.lattice[2, 2], n)
    layers = np.repeat(getattr(obj, "layer_of_atom", np.zeros(len(species), dtype=np.int64)), n)
    positions = np.repeat(obj.frac_coords[:, :2], n, axis=0)
    lattice = obj.lattice[:2, :2]
    if not coupling.any():
        model = Model.from_matrices(
            lattice, positions, cells, matrices, zeeman=zeeman, heights=heights, layers=layers
        )
    else:
        spinors = np.kron(np.eye(2), matrices).astype(complex)
        L = angular_momentum()[:, places][:, :, places]
        unit = direction / np.linalg.norm(direction)
        for axis in range(3):
            spinors[home] += np.kron(PAULI[axis] / 2, np.kron(np.diag(coupling), L[axis]))
            spinors[home] += np.kron(unit[axis] * PAULI[axis], np.diag(zeeman))
        heights, layers = np.tile(heights, 2), np.tile(layers, 2)
        model = Model.from_matrices(
            lattice, np.tile(positions, (2, 1)), cells, spinors, spinor=True, heights=heights, layers=layers
        )
    return model.replace(field=float(field))


def _hoppings(
    obj: Layered, places: NDArray[np.int64], params: Parameters, integrals: Mapping[str, float]
) -> tuple[NDArray[np.int64], Array]:
    """Cells [NR, 2] and matrices float64 [NR, n, n] of all bonds shorter than the cutoff."""
    A = obj.lattice
    frac, species = obj.frac_coords, list(obj.species)
    between_rows = abs(np.linalg.det(A[:2, :2])) / np.linalg.norm(A[1::-1, :2], axis=1)
    reach = np.ceil(params.cutoff / between_rows + np.ptp(frac[:, :2], axis=0)).astype(int)
    cells = np.array(
        [(R1, R2) for R1 in range(-reach[0], reach[0] + 1) for R2 in range(-reach[1], reach[1] + 1)]
    )
    difference = frac[None, None, :] - frac[None, :, None] + np.pad(cells, ((0, 0), (0, 1)))[:, None, None]
    vectors = difference @ A
    r = np.linalg.norm(vectors, axis=-1)
    bonded = (r < params.cutoff) & (r > 0)
    t = np.zeros_like(r)
    names = np.array(species)
    for first in sorted(set(species)):
        for second in sorted(set(species)):
            pair = bonded & (names == first)[:, None] & (names == second)
            t[pair] = params.radial(first, second, r[pair])
    m, n = len(species), len(places)
    matrices = np.zeros((len(cells), m, n, m, n))
    cell, i, j = np.nonzero(bonded)
    blocks = two_centre(vectors[bonded] / r[bonded][:, None], integrals)
    matrices[cell, i, :, j, :] = t[bonded][:, None, None] * blocks[:, places][:, :, places]
    used = bonded.any((1, 2)) | (cells == 0).all(1)
    return cells[used], matrices.reshape(len(cells), m * n, m * n)[used]
