"""The same model for other programs: PythTB, and the text file of Wannier90's readers (section 2.7)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from altermag.errors import MissingExtraError
from altermag.tb.model import Model

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def to_pythtb(model: Model, spin: int | None = None) -> Any:
    """The model as PythTB's (`tb_model` of PythTB 1, `TBModel` of PythTB 2), without its spin index.

    Of a collinear model `spin` 1 or −1 is taken; without `spin` it becomes one of 2n orbitals, all up, then
    all down, the order that a spinor model has. PythTB looks through all bonds for each: minutes beyond some
    10,000 bonds.
    Raises `MissingExtraError` without PythTB.
    """
    try:
        import pythtb
    except ImportError as error:
        raise MissingExtraError("pythtb is needed for to_pythtb: pip install 'altermag[tb]'") from error
    positions, matrices = _one_hamiltonian(model, spin)
    lattice, orbitals = model.lattice.tolist(), positions.tolist()
    if hasattr(pythtb, "TBModel"):
        exported = pythtb.TBModel(pythtb.Lattice(lattice, orbitals, periodic_dirs=[0, 1]))
    else:
        exported = pythtb.tb_model(2, 2, lattice, orbitals)
    home = int(np.flatnonzero((model.cells == 0).all(1))[0])
    exported.set_onsite(np.diag(matrices[home]).real.tolist())
    for (R1, R2), matrix in zip(model.cells.tolist(), matrices, strict=True):
        if (R1, R2) < (0, 0):
            continue  # the conjugate of −R
        terms = np.triu(matrix, 1) if (R1, R2) == (0, 0) else matrix
        for i, j in np.argwhere(terms):
            exported.set_hop(complex(terms[i, j]), int(i), int(j), [R1, R2])
    return exported


def to_wannier90_hr(model: Model, path: str | PathLike[str], spin: int | None = None) -> Path:
    """Write `path`, a `seedname_hr.dat`, in eV with all digits; return it. `spin` as in `to_pythtb`.

    The file has no positions: programs that want them (WannierBerri, WannierTools) get `model.positions`.
    """
    _, matrices = _one_hamiltonian(model, spin)
    n, count = matrices.shape[1], len(matrices)
    weights = [" 1" * min(15, count - start) for start in range(0, count, 15)]  # of each R, 15 a line
    head = [f"{model!r} written by altermag", str(n), str(count), *weights]
    column, row = np.indices((n, n)).reshape(2, -1) + 1  # of the transposed: the first index runs fastest
    target = Path(path)
    with target.open("w", encoding="ascii") as file:
        file.write("\n".join(head) + "\n")
        for (R1, R2), matrix in zip(model.cells, matrices, strict=True):
            values = matrix.T.ravel()
            table = np.stack([np.full(n * n, R1), np.full(n * n, R2), np.zeros(n * n), row, column], axis=1)
            numbers = np.column_stack([table, values.real, values.imag])
            np.savetxt(file, numbers, fmt="%5d %4d %4d %4d %4d %23.16e %23.16e")
    return target


def _one_hamiltonian(model: Model, spin: int | None) -> tuple[Array, Complex]:
    """Positions [N, 2] and matrices [NR, N, N], with field and exchange; of both spins if none is named."""
    home = (model.cells == 0).all(1)[:, None, None]
    if spin is None and model.zeeman is not None:
        both = np.concatenate([model.diagonal(s) for s in model.spins])
        return np.tile(model.positions, (2, 1)), np.kron(np.eye(2), model.matrices) + home * np.diag(both)
    return model.positions, model.matrices + home * np.diag(model.diagonal(spin))
