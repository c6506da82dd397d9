"""Runs with GPAW: LCAO with the dzp basis, PBE, spins along one axis (section 2.9).

A run is a folder. It goes on where it stopped: a converged density is kept in scf.gpw, a finished run is its
result.json and is not computed again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from altermag.dft.folders import RESULT, own_folder
from altermag.dft.gpaw_settings import PRESETS, GPAWSettings, settings_of
from altermag.dft.results import DFTResult, Floats, check_order, check_points, write_whole
from altermag.dft.sliding import CalculatorMaker
from altermag.errors import AltermagError
from altermag.io import Layered, crystal_dict, to_ase
from altermag.slabs import check_elements

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "PRESETS",
    "GPAWSettings",
    "UnconvergedError",
    "WrongOrderError",
    "anisotropy",
    "best_length",
    "calculator_of",
    "relax_at",
    "relax_monolayer",
    "run",
    "settings_of",
    "soc_bands",
    "write_inputs",
]

INSTALL = (
    "GPAW is not installed: apt-get install g++ libxc-dev libopenblas-dev, then "
    "CC=g++ CXX=g++ pip install 'altermag[gpaw]' (without CC=g++ its build fails)"
)
DENSITY = "scf.gpw"


class UnconvergedError(AltermagError):
    """SCF did not converge; its log says how far it came."""


class WrongOrderError(AltermagError):
    """SCF converged to another magnetic order than the one asked for.

    `result` is what it found, None where atoms were relaxed.
    """

    def __init__(self, message: str, result: DFTResult | None = None) -> None:
        super().__init__(message)
        self.result = result


def run(
    layered: Layered,
    preset: str = "lcao-dzp",
    out: str | PathLike[str] = "gpaw",
    *,
    k_points: ArrayLike | None = None,
    **changes: Any,
) -> DFTResult:
    """Compute energy, moments, dipole and bands of a bilayer or monolayer in the folder `out`.

    The moments of `layered` are where SCF starts and the order it must keep. `k_points` (Nk, 2), in
    fractions of b1, b2, get bands; by default those of `check_points`. `changes` are fields of
    `GPAWSettings`.

    Raises `ImportError` without GPAW, `UnconvergedError`, `WrongOrderError` if the final moments differ in
    sign, `AltermagError` for a setting that cannot be, a folder in use or of another calculation.
    """
    settings = _settings_for(layered, preset, changes)
    points = check_points(layered) if k_points is None else np.asarray(k_points, dtype=float).reshape(-1, 2)
    folder, inputs = Path(out), inputs_of(layered, settings, points)
    with own_folder(folder, inputs):
        if (folder / RESULT).exists():
            result = DFTResult.load(folder / RESULT)
        else:
            result = _compute(layered, settings, points, folder, inputs)
            result.save(folder / RESULT)
    problem = check_order(layered.magmoms, result.site_moments)
    if problem:
        raise WrongOrderError(f"{folder}: {problem}", result)
    return result


def calculator_of(preset: str = "lcao-dzp", **changes: Any) -> CalculatorMaker:
    """Return what `altermag.dft.sliding` takes: a function that makes a calculator logging to a path.

    Its `inputs` are the settings. Raises what `settings_of` raises; `ImportError` without GPAW, when it is
    called.
    """
    settings = settings_of(preset, **changes)
    told = f"gpaw lcao {json.dumps(settings.plain(), sort_keys=True)}"
    return CalculatorMaker(lambda log: _calculator(settings, log), told)


def relax_monolayer(
    layered: Layered,
    lattice_constants: ArrayLike,
    preset: str = "lcao-dzp",
    out: str | PathLike[str] = "relax",
    *,
    fmax: float = 0.03,
    **changes: Any,
) -> tuple[Atoms, dict[float, float]]:
    """Relax the atoms of a monolayer at several lengths of a1, and return it at the best with all energies.

    The cell keeps its shape and vacuum. The best length is the minimum of a parabola through the energies
    (eV by length in Å), where the atoms are relaxed again; with one length it is that one. `fmax` in eV/Å.
    Finished lengths are read again from `out`. Raises what `run` raises, and `AltermagError` for energies
    with no minimum between the lengths.
    """
    lengths = [float(length) for length in np.atleast_1d(np.asarray(lattice_constants, dtype=float))]

    def relaxed(length: float) -> Atoms:
        return relax_at(layered, length, preset, Path(out) / f"a{length:.4f}", fmax=fmax, **changes)

    energies = {length: float(relaxed(length).get_potential_energy()) for length in lengths}
    best = best_length(energies) if len(lengths) > 1 else lengths[0]
    atoms = relaxed(best)
    return atoms, energies | {best: float(atoms.get_potential_energy())}


def relax_at(
    layered: Layered,
    length: float,
    preset: str = "lcao-dzp",
    out: str | PathLike[str] = "relax",
    *,
    fmax: float = 0.03,
    **changes: Any,
) -> Atoms:
    """Return the atoms of a layer relaxed with a1 of this length in Å, the cell's shape kept; see above."""
    from ase.io import read, write

    settings, folder = _settings_for(layered, preset, changes), Path(out)
    atoms = atoms_of(layered)
    cell = np.array(atoms.cell)
    cell[:2] *= length / np.linalg.norm(cell[0])
    positions = atoms.get_positions()
    positions[:, :2] = atoms.get_scaled_positions(wrap=False)[:, :2] @ cell[:2, :2]  # heights stay
    atoms.set_cell(cell)
    atoms.set_positions(positions)
    inputs = inputs_of(layered, settings, np.zeros((1, 2))) | {"length": round(length, 6), "fmax": fmax}
    with own_folder(folder, inputs):
        done = folder / "relaxed.traj"
        if not done.exists():
            atoms.calc = _calculator(settings, folder / "scf.txt")
            _relax(atoms, folder, fmax)
            partial = folder / "partial.traj"
            write(partial, atoms)
            partial.replace(done)
        relaxed = read(done)
    assert not isinstance(relaxed, list)  # one structure is in the file
    problem = check_order(layered.magmoms, relaxed.get_magnetic_moments())
    if problem:
        raise WrongOrderError(f"{folder}: {problem}")
    return relaxed


def best_length(energies: Mapping[float, float]) -> float:
    """Return the length in Å, to 1e-4, at the minimum of a parabola through energies in eV by length.

    Raises `AltermagError` for fewer than three, or a minimum that is not between them.
    """
    lengths = np.array(sorted(energies))
    if len(lengths) < 3:
        raise AltermagError(f"{len(lengths)} lattice constants have no minimum; give one, or at least three")
    curvature, slope, _ = np.polyfit(lengths, [energies[length] for length in lengths], 2)
    best = -slope / (2 * curvature) if curvature > 0 else np.inf
    if not lengths[0] <= best <= lengths[-1]:
        shown = ", ".join(f"{length:g} Å: {energies[length]:.4f} eV" for length in lengths)
        raise AltermagError(f"the energy has no minimum between the lattice constants ({shown})")
    return round(float(best), 4)


def anisotropy(out: str | PathLike[str], k_mesh: tuple[int, int] = (6, 6)) -> dict[str, float]:
    """Return the band energy in meV a cell with spins along x, y and z, relative to the lowest.

    Spin-orbit coupling is added to the density of the run in `out`, not self-consistently (force theorem).
    Raises `AltermagError` if there is no converged run.
    """
    from gpaw.spinorbit import soc_eigenstates

    calculator = _restart(Path(out))
    dense = _fixed(calculator, {"size": (*k_mesh, 1), "gamma": True}, Path(out) / "anisotropy.txt")
    angles = {"x": (90.0, 0.0), "y": (90.0, 90.0), "z": (0.0, 0.0)}
    energy = {
        axis: soc_eigenstates(dense, theta=theta, phi=phi).calculate_band_energy()
        for axis, (theta, phi) in angles.items()
    }
    return {axis: 1e3 * (value - min(energy.values())) for axis, value in energy.items()}


def soc_bands(
    out: str | PathLike[str], k_points: ArrayLike, neel: tuple[float, float, float] = (0, 0, 1)
) -> Floats:
    """Return bands with spin-orbit coupling, (Nk, 2n) in eV, of the run in `out` with spins along ±`neel`.

    Raises `AltermagError` if there is no converged run.
    """
    from gpaw.spinorbit import soc_eigenstates

    points = np.asarray(k_points, dtype=float).reshape(-1, 2)
    x, y, z = np.asarray(neel, dtype=float) / np.linalg.norm(neel)
    calculator = _restart(Path(out))
    bands = _fixed(calculator, np.c_[points, np.zeros(len(points))], Path(out) / "soc.txt")
    theta, phi = np.degrees(np.arccos(z)), np.degrees(np.arctan2(y, x))
    return soc_eigenstates(bands, theta=float(theta), phi=float(phi)).eigenvalues()


def write_inputs(layered: Layered, out: str | PathLike[str], preset: str = "lcao-dzp") -> list[Path]:
    """Write structure.json and run.py, for `python run.py` elsewhere, and return them."""
    settings_of(preset)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    structure, script = folder / "structure.json", folder / "run.py"
    cell = crystal_dict(layered.lattice, layered.frac_coords, layered.species, layered.magmoms)
    write_whole(structure, json.dumps(cell))
    write_whole(script, SCRIPT.format(preset=preset))
    return [structure, script]


SCRIPT = '''"""Compute this bilayer with GPAW; started again it goes on where it stopped."""

from altermag.dft import gpaw
from altermag.io import read

result = gpaw.run(read("structure.json"), preset={preset!r}, out="run")
print(f"{{result.energy:.4f}} eV, gap {{result.gap:.3f}} eV, P_z {{result.polarisation:.3f}} pC/m")
'''


def atoms_of(layered: Layered) -> Atoms:
    """Return ASE atoms, periodic in the plane, centred along z, with the moments that SCF starts from."""
    atoms = to_ase(layered)
    atoms.center(axis=2)
    return atoms


def inputs_of(layered: Layered, settings: GPAWSettings, points: Floats) -> dict[str, Any]:
    """Return all that a run depends on, as plain JSON; coordinates to 1e-8."""
    structure = {
        "lattice": np.round(layered.lattice, 8).tolist(),
        "frac_coords": np.round(layered.frac_coords, 8).tolist(),
        "species": list(layered.species),
        "magmoms": np.round(layered.magmoms, 8).tolist(),
    }
    return {"structure": structure, "settings": settings.plain(), "k_points": np.round(points, 8).tolist()}


def _settings_for(layered: Layered, preset: str, changes: dict[str, Any]) -> GPAWSettings:
    settings = settings_of(preset, **changes)
    check_elements(settings.hubbard, "hubbard", layered.species)
    return settings


def _compute(
    layered: Layered, settings: GPAWSettings, points: Floats, folder: Path, inputs: dict[str, Any]
) -> DFTResult:
    start = time.monotonic()
    atoms = atoms_of(layered)
    if (folder / DENSITY).exists():
        calculator = _restart(folder)
    else:
        calculator = _calculator(settings, folder / "scf.txt")
        atoms.calc = calculator
        with _told_unconverged(folder):
            atoms.get_potential_energy()
        partial = folder / "partial.gpw"
        calculator.write(partial)
        partial.replace(folder / DENSITY)
    bands = _fixed(calculator, np.c_[points, np.zeros(len(points))], folder / "bands.txt")
    eigenvalues = [[bands.get_eigenvalues(kpt=k, spin=spin) for k in range(len(points))] for spin in (0, 1)]
    homo, lumo = calculator.get_homo_lumo()
    return DFTResult(
        engine=f"gpaw {_version()}",
        inputs=inputs,
        lattice=np.array(layered.lattice),
        energy=float(calculator.get_potential_energy()),
        converged=True,
        fermi_level=float(calculator.get_fermi_level()),
        gap=max(0.0, float(lumo - homo)),
        total_moment=float(calculator.get_magnetic_moment()),
        site_moments=np.array(calculator.get_magnetic_moments()),
        dipole_z=float(calculator.get_dipole_moment()[2]),
        k_points=points,
        eigenvalues=np.sort(np.array(eigenvalues), axis=-1),
        seconds=time.monotonic() - start,
    )


def _calculator(settings: GPAWSettings, log: Path) -> Any:
    gpaw = _gpaw()
    return gpaw.GPAW(
        mode="lcao",
        basis=settings.basis,
        xc=settings.xc,
        h=settings.h,
        kpts={"size": (*settings.k_mesh, 1), "gamma": True},
        occupations=gpaw.FermiDirac(settings.width),
        setups={element: f":d,{energy}" for element, energy in settings.hubbard.items()},
        convergence={"density": settings.density},
        maxiter=settings.max_iterations,
        txt=str(log),
    )


def _relax(atoms: Atoms, folder: Path, fmax: float) -> None:
    from ase.optimize import BFGS

    with _told_unconverged(folder):
        # BFGS needs a step for every force; a layer of eight atoms takes about ten.
        relaxed = BFGS(atoms, logfile=str(folder / "bfgs.txt")).run(fmax=fmax, steps=100)
    if not relaxed:
        raise UnconvergedError(f"{folder}: the atoms are not relaxed after 100 steps; see bfgs.txt")


@contextmanager
def _told_unconverged(folder: Path) -> Iterator[None]:
    from gpaw import KohnShamConvergenceError

    try:
        yield
    except KohnShamConvergenceError as error:
        raise UnconvergedError(f"{folder}: SCF did not converge; see {folder / 'scf.txt'}") from error


def _restart(folder: Path) -> Any:
    if not (folder / DENSITY).exists():
        raise AltermagError(f"{folder} has no {DENSITY}: run the calculation there first")
    return _gpaw().GPAW(str(folder / DENSITY), txt=None)


def _fixed(calculator: Any, k_points: Any, log: Path) -> Any:
    return calculator.fixed_density(kpts=k_points, symmetry="off", txt=str(log))


def _gpaw() -> Any:
    try:
        import gpaw
        from gpaw.mpi import world
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if world.size > 1:
        raise AltermagError(
            "a calculation runs in one process; compute several bilayers side by side instead"
        )
    return gpaw


def _version() -> str:
    return str(_gpaw().__version__)
