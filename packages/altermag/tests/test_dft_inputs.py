from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from altermag import AltermagError
from altermag.dft import espresso
from altermag.dft.results import check_points
from altermag.prototypes import TRIHALIDE_STACKINGS, ptbr3
from altermag.stacking import Bilayer, stack

vasp = pytest.importorskip("altermag.dft.vasp", reason="needs altermag[vasp]", exc_type=ImportError)


@pytest.fixture(scope="module")
def ab() -> Bilayer:
    return stack(ptbr3(), "mirror", TRIHALIDE_STACKINGS["AB'"], distance=6.35)


def test_the_files_of_a_vasp_run_parse_back(
    ab: Bilayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

    monkeypatch.setattr(vasp, "SETTINGS", {})  # as for a user without pseudopotentials
    vasp.input_set(ab, "scf", hubbard={"Pt": 1.5}).write_input(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["INCAR", "KPOINTS", "POSCAR", "POTCAR.spec"]
    incar = Incar.from_file(tmp_path / "INCAR")
    structure = Poscar.from_file(tmp_path / "POSCAR").structure
    assert structure.composition.reduced_formula == "PtBr3"
    assert incar["ENCUT"] == 500
    assert incar["EDIFF"] == 1e-7
    assert (incar["IVDW"], incar["IDIPOL"], incar["LDIPOL"], incar["LASPH"]) == (12, 3, True, True)
    assert (incar["LDAUTYPE"], incar["LDAUU"], incar["LDAUL"]) == (2, [1.5, 0], [2, -1])
    # Moments follow their atoms through pymatgen's sorting: the upper platinum atoms are down.
    height = np.array([site.frac_coords[2] for site in structure]) - 0.5
    platinum = np.array([site.species_string == "Pt" for site in structure])
    assert np.array_equal(np.array(incar["MAGMOM"]), np.where(platinum, -np.sign(height), 0.0))
    assert Kpoints.from_file(tmp_path / "KPOINTS").kpts == [(9, 9, 1)]


def test_bands_are_at_the_points_that_test_the_symmetry(ab: Bilayer) -> None:
    kpoints = vasp.input_set(ab, "bands").kpoints
    assert np.array(kpoints.kpts)[:, :2] == pytest.approx(check_points(ab))
    assert np.array(kpoints.kpts)[:, 2].tolist() == [0.0] * len(check_points(ab))


def test_the_kerr_run_has_spin_orbit_coupling_and_spins_along_the_neel_vector(ab: Bilayer) -> None:
    incar = vasp.input_set(ab, "moke", neel=(1, 0, 0)).incar
    assert (incar["LSORBIT"], incar["LOPTICS"], incar["ISYM"], incar["CSHIFT"]) == (True, True, -1, 0.1)
    assert incar["SAXIS"] == [1.0, 0.0, 0.0]
    moments = np.array([list(moment) for moment in incar["MAGMOM"]])
    assert moments.shape == (16, 3)
    assert np.sort(moments[:, 2])[[0, 1, -2, -1]].tolist() == [-1, -1, 1, 1]


def test_tags_and_the_mesh_can_be_changed_and_taken_away(ab: Bilayer) -> None:
    changed = vasp.input_set(ab, "scf", incar={"ENCUT": 400, "IVDW": None}, mesh=(3, 5))
    assert changed.incar["ENCUT"] == 400
    assert "IVDW" not in changed.incar
    assert changed.kpoints.kpts == [(3, 5, 1)]


def test_mistakes_in_vasp_inputs_are_named(ab: Bilayer, tmp_path: Path) -> None:
    with pytest.raises(AltermagError, match="no preset 'hse'; there are: scf, relax"):
        vasp.input_set(ab, "hse")
    with pytest.raises(AltermagError, match="hubbard names Ni"):
        vasp.input_set(ab, "scf", hubbard={"Ni": 4})
    with pytest.raises(AltermagError, match="not a VASP run"):
        vasp.read_result(tmp_path)


def test_espresso_inputs_are_read_back_by_ase_with_the_moments_signs(ab: Bilayer, tmp_path: Path) -> None:
    scf, bands, run = espresso.write_inputs(ab, tmp_path, pseudopotentials={"Pt": "Pt_ONCV.upf"})
    atoms = read(scf, format="espresso-in")
    assert atoms.get_chemical_symbols() == list(ab.species)
    assert atoms.get_positions() == pytest.approx(ab.atoms.get_positions(), abs=1e-9)
    text = scf.read_text()
    starts = {int(i): float(m) for i, m in re.findall(r"starting_magnetization\((\d)\)\s*=\s*(\S+)", text)}
    assert sorted(starts.values()) == [-0.5, 0.0, 0.5]
    assert "Pt_ONCV.upf" in text
    assert "Br.upf" in text
    listed = bands.read_text().split("K_POINTS crystal\n")[1].splitlines()
    assert int(listed[0]) == len(check_points(ab))
    assert "calculation      = 'bands'" in bands.read_text()
    assert subprocess.run(["sh", "-n", str(run)], check=False).returncode == 0


def test_mistakes_in_espresso_inputs_are_named(ab: Bilayer, tmp_path: Path) -> None:
    with pytest.raises(AltermagError, match="no preset 'md'; there are: scf, relax"):
        espresso.write_inputs(ab, tmp_path, "md")
    with pytest.raises(AltermagError, match="a pseudopotential is given for Ni, which is not there"):
        espresso.write_inputs(ab, tmp_path, pseudopotentials={"Ni": "Ni.upf"})
