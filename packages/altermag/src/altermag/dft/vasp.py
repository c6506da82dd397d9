"""Input sets for VASP, as pymatgen's (section 2.9). The presets are ours: the paper's are not known to us.

pymatgen takes pseudopotentials from the user's licensed copy (PMG_VASP_PSP_DIR); without one POTCAR.spec is
written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike

from altermag.dft.results import DFTResult, check_points
from altermag.errors import AltermagError, MissingExtraError
from altermag.io import Layered, to_pymatgen
from altermag.slabs import check_elements

try:
    from pymatgen.core import SETTINGS
    from pymatgen.core.lattice import Lattice
    from pymatgen.core.structure import Structure
    from pymatgen.io.vasp.inputs import Kpoints
    from pymatgen.io.vasp.sets import VaspInputSet
except ImportError as _error:
    raise MissingExtraError("pymatgen is needed for VASP inputs: pip install 'altermag[vasp]'") from _error

BASE: dict[str, Any] = {
    "ALGO": "Normal",
    "EDIFF": 1e-7,
    "ENCUT": 500,
    "GGA": "PE",
    "IDIPOL": 3,  # along the vacuum
    "ISMEAR": 0,
    "ISPIN": 2,
    "IVDW": 12,  # D3 with Becke-Johnson damping
    "LASPH": True,
    "LDIPOL": True,
    "LORBIT": 11,
    "LREAL": False,
    "MAGMOM": {},  # the structure's own
    "NELM": 200,
    "PREC": "Accurate",
    "SIGMA": 0.02,
}
RELAX = {"EDIFFG": -0.005, "IBRION": 2, "NSW": 200}
OPTICS = {"CSHIFT": 0.1, "ISYM": -1, "LOPTICS": True, "NEDOS": 4001}
SOC = {"GGA_COMPAT": False, "ISYM": -1, "LSORBIT": True}
PRESETS: dict[str, dict[str, Any]] = {
    "scf": {"NSW": 0, "LCHARG": True},
    "relax": {"ISIF": 2, **RELAX},
    # The third vector is vacuum and must stay (VASP 6.5 or later).
    "relax-cell": {"ISIF": 3, "LATTICE_CONSTRAINTS": ".TRUE. .TRUE. .FALSE.", **RELAX, "LDIPOL": None},
    "bands": {"ICHARG": 11, "LCHARG": False, "NSW": 0},
    "optics": {"NSW": 0, **OPTICS},
    "soc": {"NSW": 0, **SOC},
    "moke": {"NSW": 0, **OPTICS, **SOC},
}
SPINORS = ("soc", "moke")
MESH = {"optics": 15, "moke": 15}
DEFAULT_MESH = 9
POTENTIALS = {
    "Pt": "Pt",
    "Ni": "Ni_pv",
    "Cr": "Cr_pv",
    "Mn": "Mn_pv",
    "Fe": "Fe_pv",
    "V": "V_pv",
    "Ru": "Ru_pv",
}


@dataclass
class AltermagSet(VaspInputSet):
    """A pymatgen input set that writes POTCAR.spec where there are no pseudopotentials to write."""

    def write_input(
        self,
        output_dir: str | PathLike[str],
        make_dir_if_not_present: bool = True,
        include_cif: bool | str = False,
        potcar_spec: bool | None = None,
        zip_output: bool | str = False,
    ) -> None:
        """Write INCAR, KPOINTS, POSCAR and POTCAR, or POTCAR.spec where PMG_VASP_PSP_DIR is not set."""
        spec = not SETTINGS.get("PMG_VASP_PSP_DIR") if potcar_spec is None else potcar_spec
        super().write_input(str(output_dir), make_dir_if_not_present, include_cif, spec, zip_output)


def input_set(
    layered: Layered | Structure,
    task: str = "scf",
    *,
    incar: Mapping[str, Any] | None = None,
    hubbard: Mapping[str, float] | None = None,
    mesh: int | tuple[int, int] | None = None,
    k_points: ArrayLike | None = None,
    neel: tuple[float, float, float] = (0, 0, 1),
    potentials: Mapping[str, str] | None = None,
) -> AltermagSet:
    """Return the input set of a bilayer, a monolayer or a pymatgen structure with moments.

    `task` is one of `PRESETS`; `incar` changes tags (None removes one); `hubbard` gives U in eV to the d
    shell of elements (Dudarev). `mesh` is Γ-centred; `k_points` (Nk, 2) in fractions are those of task
    "bands", by default `check_points`. With spin-orbit coupling the spins lie along ±`neel`. `potentials`
    names POTCARs.

    Raises `AltermagError` for an unknown task, or an element that is not there.
    """
    structure = vasp_structure(layered)
    species = [element.symbol for element in structure.composition.elements]
    check_elements(hubbard or (), "hubbard", species)
    check_elements(potentials or (), "potentials", species)
    if task == "bands" and mesh is None and k_points is None:
        if isinstance(layered, Structure):
            raise AltermagError("bands of a pymatgen structure need k_points")
        k_points = check_points(layered)
    found = generator(
        task, incar=incar, hubbard=hubbard, mesh=mesh, k_points=k_points, neel=neel, potentials=potentials
    )
    found.structure = with_vector_moments(structure) if task in SPINORS else structure
    return found


def generator(
    task: str,
    *,
    incar: Mapping[str, Any] | None = None,
    hubbard: Mapping[str, float] | None = None,
    mesh: int | tuple[int, int] | None = None,
    k_points: ArrayLike | None = None,
    neel: tuple[float, float, float] = (0, 0, 1),
    potentials: Mapping[str, str] | None = None,
) -> AltermagSet:
    """Return the same for structures to come, as pymatgen and atomate2 want an input generator.

    A structure for a task in `SPINORS` needs its moments as vectors (`with_vector_moments`). Raises
    `AltermagError` for an unknown task, or what is no element.
    """
    if task not in PRESETS:
        raise AltermagError(f"VASP has no preset {task!r}; there are: {', '.join(PRESETS)}")
    check_elements(hubbard or (), "hubbard")
    check_elements(potentials or (), "potentials")
    tags = BASE | PRESETS[task] | _hubbard_tags(hubbard or {})
    if task in SPINORS:
        tags["SAXIS"] = [float(number) for number in neel]
    tags |= dict(incar or {})
    settings = {
        "INCAR": {tag: value for tag, value in tags.items() if value is not None},
        "POTCAR_FUNCTIONAL": "PBE_54",
        "POTCAR": {name: name for name in chemical_symbols} | POTENTIALS | dict(potentials or {}),
        "KPOINTS": {},
    }
    return AltermagSet(None, settings, user_kpoints_settings=_kpoints(task, mesh, k_points))


def vasp_structure(layered: Layered | Structure) -> Structure:
    """Return the pymatgen structure as VASP sees it: periodic in all directions, sorted by element."""
    given = layered if isinstance(layered, Structure) else to_pymatgen(layered)
    lattice = Lattice(given.lattice.matrix)
    properties = given.site_properties
    whole = Structure(lattice, given.species, given.frac_coords, site_properties=properties)
    return whole.get_sorted_structure()


def with_vector_moments(structure: Structure) -> Structure:
    """Return the structure with its moments as vectors along z, which is VASP's SAXIS."""
    turned = structure.copy()
    moments = [[0.0, 0.0, float(moment)] for moment in structure.site_properties["magmom"]]
    return turned.add_site_property("magmom", moments)


def write_inputs(layered: Layered, out: str | PathLike[str], preset: str = "scf") -> list[Path]:
    """Write the input set of one task into a folder and return its files."""
    folder = Path(out)
    input_set(layered, preset).write_input(folder)
    return sorted(folder.iterdir())


def read_result(folder: str | PathLike[str]) -> DFTResult:
    """Return what a finished collinear VASP run says: vasprun.xml, and OUTCAR for moments and dipole.

    Raises `AltermagError` where there is no readable run, or one without two spins.
    """
    from pymatgen.io.vasp.outputs import Outcar, Vasprun

    where = Path(folder)
    found: Any
    outcar: Any
    try:
        found = Vasprun(where / "vasprun.xml", parse_potcar_file=False)
        outcar = Outcar(str(where / "OUTCAR")) if (where / "OUTCAR").exists() else None
    except Exception as error:  # the parser raises whatever it stumbles over
        raise AltermagError(f"{where}: not a VASP run ({type(error).__name__}: {error})") from error
    spins = sorted(found.eigenvalues, key=lambda spin: -spin.value)
    if len(spins) != 2:
        raise AltermagError(f"{where}: a run with {len(spins)} spin channel; needed: ISPIN = 2, collinear")
    moments = [site["tot"] for site in outcar.magnetization] if outcar is not None else []
    return DFTResult(
        engine=f"vasp {found.vasp_version}",
        inputs={"incar": {key: str(value) for key, value in found.incar.items()}},
        lattice=np.array(found.final_structure.lattice.matrix),
        energy=float(found.final_energy),
        converged=bool(found.converged_electronic),
        fermi_level=float(found.efermi),
        gap=float(found.eigenvalue_band_properties[0]),
        total_moment=float(outcar.total_mag)
        if outcar is not None and outcar.total_mag
        else float(sum(moments)),
        site_moments=np.array(moments, dtype=float),
        dipole_z=_dipole(where / "OUTCAR"),
        k_points=np.array(found.actual_kpoints, dtype=float)[:, :2],
        eigenvalues=np.sort(np.array([found.eigenvalues[spin][:, :, 0] for spin in spins]), axis=-1),
    )


def _kpoints(task: str, mesh: int | tuple[int, int] | None, points: ArrayLike | None) -> Any:
    if points is not None:
        listed = np.asarray(points, dtype=float).reshape(-1, 2)
        return Kpoints(
            comment="altermag",
            num_kpts=len(listed),
            style=Kpoints.supported_modes.Reciprocal,
            kpts=[(*point, 0.0) for point in listed.tolist()],
            kpts_weights=[1.0] * len(listed),
        )
    size = MESH.get(task, DEFAULT_MESH) if mesh is None else mesh
    along = (size, size) if isinstance(size, int) else size
    return Kpoints.gamma_automatic((*along, 1))


def _hubbard_tags(hubbard: Mapping[str, float]) -> dict[str, Any]:
    if not hubbard:
        return {}
    return {
        "LDAU": True,
        "LDAUTYPE": 2,
        "LDAUL": dict.fromkeys(chemical_symbols, -1) | dict.fromkeys(hubbard, 2),
        "LDAUU": dict(hubbard),
        "LDAUJ": dict.fromkeys(hubbard, 0.0),
    }


def _dipole(outcar: Path) -> float:
    """The last dipole moment along z of an OUTCAR, e·Å, or NaN."""
    if not outcar.exists():
        return float("nan")
    lines = [line for line in outcar.read_text(errors="replace").splitlines() if "dipolmoment" in line]
    return float(lines[-1].split()[3]) if lines else float("nan")
