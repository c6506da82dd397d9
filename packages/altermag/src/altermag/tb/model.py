"""A tight-binding model of a two-dimensional crystal: H(k), its bands, its spin splitting, its velocity."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from altermag.errors import AltermagError
from altermag.tb.bloch import Tables, chunks, derivatives

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Complex = NDArray[np.complex128]
Hopping = tuple[int, int, tuple[int, int], complex]


class Model:
    """Hoppings on a lattice, ⟨i0|H|jR⟩, with the spin in one of three ways.

    Without spin a model is one Hamiltonian of n states. A *collinear* model (it has `zeeman`) is two, of the
    same hoppings, with s·zeeman_i on the diagonal for s = +1 (up) and −1 (down). A *spinor* model is one,
    whose states are all those of spin up, then all those of spin down.

    Attributes: `lattice` [2, 2] Å; `positions` [n, 2] in fractions of it, one row a state; `cells` int [NR,
    2], the R; `matrices` complex128 [NR, n, n] eV, hermitian over R and −R together, with the on-site
    energies at R = 0; `zeeman` [n] eV or None; `spinor`; `heights` [n] Å from the mid-plane and `layers` int
    [n], the layer of a state, or None where the model came from no structure; `field` V/Å along z, in which
    an electron has + e E_z z.
    """

    def __init__(
        self, lattice: ArrayLike, positions: ArrayLike, hoppings: Iterable[Hopping], onsite: ArrayLike
    ) -> None:
        """A model without spin: `hoppings` are (i, j, (R1, R2), t), the term t |i,0⟩⟨j,R|.

        The hermitian conjugate of every hopping is added: give each bond once. `lattice` [2, 2] Å,
        `positions` [n, 2] in fractions of it, `onsite` [n] and t in eV.
        Raises `AltermagError` for shapes that do not fit, a bond given twice, or a state that is not there.
        """
        r, energies = np.asarray(positions, dtype=float), np.asarray(onsite, dtype=float)
        if r.ndim != 2 or r.shape[1] != 2 or energies.shape != (len(r),):
            raise AltermagError(
                f"positions are (n, 2) and on-site energies (n,); these are {r.shape} and {energies.shape}"
            )
        cells, matrices = _collect(hoppings, energies)
        self._fill(lattice, r, cells, matrices)

    @classmethod
    def from_matrices(
        cls,
        lattice: ArrayLike,
        positions: ArrayLike,
        cells: ArrayLike,
        matrices: ArrayLike,
        *,
        zeeman: Array | None = None,
        spinor: bool = False,
        heights: Array | None = None,
        layers: Integers | None = None,
    ) -> Self:
        """A model of the attributes as they are; `matrices` holds every R with its −R."""
        model = cls.__new__(cls)
        model._fill(lattice, positions, cells, matrices)
        model.zeeman, model.spinor, model.heights, model.layers = zeeman, spinor, heights, layers
        return model

    def _fill(self, lattice: ArrayLike, positions: ArrayLike, cells: ArrayLike, matrices: ArrayLike) -> None:
        self.lattice = np.asarray(lattice, dtype=float)
        self.positions = np.asarray(positions, dtype=float)
        self.cells = np.asarray(cells, dtype=np.int64)
        self.matrices = np.asarray(matrices, dtype=complex)
        self.zeeman: Array | None = None
        self.spinor = False
        self.heights: Array | None = None
        self.layers: Integers | None = None
        self.field = 0.0
        if self.lattice.shape != (2, 2) or not abs(np.linalg.det(self.lattice)) > 1e-9:
            raise AltermagError("the lattice of a model is two independent rows of two finite components (Å)")
        if not (np.isfinite(self.positions).all() and np.isfinite(self.matrices).all()):
            raise AltermagError("a model has finite positions, energies and hoppings only")

    def replace(self, **attributes: object) -> Self:
        """The same model with some attributes changed. Raises `AltermagError` for what is no attribute."""
        model = copy.copy(self)
        for name, value in attributes.items():
            if name not in vars(self):
                raise AltermagError(f"a model has no {name!r}; it has {', '.join(vars(self))}")
            setattr(model, name, value)
        return model

    @property
    def n_states(self) -> int:
        """The states of one Hamiltonian: a collinear model has as many of each spin."""
        return len(self.positions)

    @property
    def spins(self) -> tuple[int | None, ...]:
        """What `spin` may be: (1, -1) of a collinear model, (None,) of the others."""
        return (None,) if self.zeeman is None else (1, -1)

    @property
    def area(self) -> float:
        """The area of the cell in Å²."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def tables(self) -> Tables:
        """The arrays that `altermag.tb.bloch` works on, of numpy; without what differs between the spins."""
        return Tables(self.cells.astype(float), self.matrices.astype(complex), self.positions, self.lattice)

    def diagonal(self, spin: int | None = None) -> Array:
        """Float64 [n] eV: what the field and the exchange of `spin` (collinear only) add on the diagonal."""
        if spin not in self.spins:
            allowed = "1 or -1" if self.zeeman is not None else "None, for it is not collinear"
            raise AltermagError(f"the spin of this model is {allowed}, not {spin!r}")
        energies = np.zeros(self.n_states)
        if self.field:
            energies += self.field * self._with_heights()
        if spin is not None and self.zeeman is not None:
            energies += spin * self.zeeman
        return energies

    def _with_heights(self) -> Array:
        if self.heights is None:
            raise AltermagError(
                "this model has no heights of its states above the mid-plane: set model.heights"
            )
        return self.heights

    def hamiltonian(self, k: ArrayLike, spin: int | None = None) -> Complex:
        """H(k), complex128 [Nk, n, n] in eV; of a collinear model without `spin` both, [2, Nk, n, n], up
        first.

        `k` [Nk, 2] is in fractions of the reciprocal lattice. H_ij(k) = Σ_R ⟨i0|H|jR⟩ exp[i k·(R + r_j −
        r_i)].
        """
        H = derivatives(np, self.tables, k_points(k), 0)[0]
        if spin is None and self.zeeman is not None:
            return np.stack([H + np.diag(self.diagonal(s)) for s in self.spins])
        return H + np.diag(self.diagonal(spin))

    def velocity(self, k: ArrayLike) -> Complex:
        """ħ v = ∂H/∂k, complex128 [2, Nk, n, n] in eV Å: along x, along y. It is the same for both spins."""
        return np.stack(derivatives(np, self.tables, k_points(k), 1)[1:])

    def bands(self, k: ArrayLike) -> Array:
        """Energies in eV, in order at each k: [2, Nk, n] of a collinear model, up first, else [Nk, n]."""
        points = k_points(k)
        energies = np.empty((len(self.spins), len(points), self.n_states))
        for chunk in chunks(len(points), self.n_states):
            H = derivatives(np, self.tables, points[chunk], 0)[0]
            for number, spin in enumerate(self.spins):
                energies[number, chunk] = np.linalg.eigvalsh(H + np.diag(self.diagonal(spin)))
        return energies if len(self.spins) == 2 else energies[0]

    def splitting(self, k: ArrayLike) -> Array:
        """Δ_n(k) = E_n↑(k) − E_n↓(k), float64 [Nk, n] in eV, the bands of each spin in order (section 2.6).

        Raises `AltermagError` unless the model is collinear: with spin-orbit coupling bands have no spin.
        """
        if self.zeeman is None:
            raise AltermagError("only a collinear model has bands of spin up and down: build it with soc=0")
        up, down = self.bands(k)
        return up - down

    def __repr__(self) -> str:
        spin = "spinor" if self.spinor else "no spin" if self.zeeman is None else "collinear"
        return f"Model({self.n_states} states, {spin}, {len(self.cells)} cells)"


def k_points(k: ArrayLike) -> Array:
    """Float64 [Nk, 2] of one point or many, in fractions of the reciprocal lattice; a third component must be
    0.

    Raises `AltermagError` for another shape, what is not finite, or k out of the plane.
    """
    points = np.atleast_2d(np.asarray(k, dtype=float))
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not np.isfinite(points).all():
        raise AltermagError(
            f"k points are (N, 2) finite fractions of the reciprocal lattice, not {points.shape}"
        )
    if points.shape[1] == 3 and np.any(points[:, 2]):
        raise AltermagError("a layer has no bands along z: the third component of its k points is 0")
    return points[:, :2]


def _collect(hoppings: Iterable[Hopping], onsite: Array) -> tuple[Integers, Complex]:
    """The cells [NR, 2] and matrices [NR, n, n] of bonds that are given once."""
    n = len(onsite)
    terms = {(i, i, 0, 0): complex(energy) for i, energy in enumerate(onsite)}
    for i, j, (R1, R2), t in hoppings:
        name = f"hopping ({i}, {j}, ({R1}, {R2}))"
        if not (0 <= i < n and 0 <= j < n):
            raise AltermagError(f"{name}: the states are 0 to {n - 1}")
        if (i, j, R1, R2) in terms:
            raise AltermagError(
                f"{name} is there already: give each bond once (its hermitian conjugate is added), and "
                "on-site energies in onsite"
            )
        terms[i, j, R1, R2] = complex(t)
        terms[j, i, -R1, -R2] = complex(t).conjugate()
    cells = sorted({key[2:] for key in terms})
    place = {cell: number for number, cell in enumerate(cells)}
    matrices = np.zeros((len(cells), n, n), dtype=complex)
    for (i, j, R1, R2), t in terms.items():
        matrices[place[R1, R2], i, j] = t
    return np.array(cells, dtype=np.int64), matrices
