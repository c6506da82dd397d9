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


def test_every_task_has_the_dipole_correction_but_where_the_cell_is_relaxed(ab: Bilayer) -> None:
    for task in vasp.PRESETS:
        incar = vasp.input_set(ab, task).incar
        assert (incar["IDIPOL"], incar.get("LDIPOL")) == (3, None if task == "relax-cell" else True), task


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
    with pytest.raises(AltermagError, match="potentials names Ni, which the structure does not have"):
        vasp.input_set(ab, "scf", potentials={"Ni": "Ni"})
    with pytest.raises(AltermagError, match="hubbard names Pf, which is no chemical element"):
        vasp.generator("scf", hubbard={"Pf": 4})
    with pytest.raises(AltermagError, match="not a VASP run"):
        vasp.read_result(tmp_path)


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp </i><i name="version" type="string">6.4.2 </i></generator>
 <incar><i type="int" name="ISPIN">2</i><i name="ENCUT">500.0</i></incar>
 <kpoints>
  <varray name="kpointlist"><v>0.0 0.0 0.0</v><v>0.3 0.1 0.0</v></varray>
  <varray name="weights"><v>0.5</v><v>0.5</v></varray>
 </kpoints>
 <parameters><i type="int" name="ISPIN">2</i><i type="int" name="NELM">60</i><i type="int" name="NSW">0</i>
  <i type="int" name="IBRION">-1</i></parameters>
 <atominfo><atoms>1</atoms><types>1</types>
  <array name="atoms"><set><rc><c>Ni</c><c>1</c></rc></set></array>
  <array name="atomtypes"><set><rc><c>1</c><c>Ni</c><c>58.69</c><c>10.0</c><c>PAW_PBE Ni</c></rc></set>
  </array>
 </atominfo>
 <structure name="initialpos">{crystal}</structure>
 <calculation>
  <scstep>{energy}</scstep>
  <structure>{crystal}</structure>
  <varray name="forces"><v>0.0 0.0 0.0</v></varray>
  {energy}
  <eigenvalues><array><set>
   <set comment="spin 1"><set comment="kpoint 1"><r>-1.0 1.0</r><r>2.0 0.0</r></set>
    <set comment="kpoint 2"><r>-1.2 1.0</r><r>2.1 0.0</r></set></set>
   <set comment="spin 2"><set comment="kpoint 1"><r>-1.0 1.0</r><r>2.0 0.0</r></set>
    <set comment="kpoint 2"><r>-1.1 1.0</r><r>2.0 0.0</r></set></set>
  </set></array></eigenvalues>
  <dos><i name="efermi">0.25</i><total><array><set>
   <set comment="spin 1"><r>-1.0 0.0 0.0</r><r>2.0 0.0 1.0</r></set>
   <set comment="spin 2"><r>-1.0 0.0 0.0</r><r>2.0 0.0 1.0</r></set>
  </set></array></total></dos>
 </calculation>
 <structure name="finalpos">{crystal}</structure>
</modeling>
"""
ENERGY = """<energy><i name="e_fr_energy">-5.0</i><i name="e_wo_entrp">-5.0</i><i name="e_0_energy">-5.0</i>
 </energy>"""
CRYSTAL = """<crystal>
 <varray name="basis"><v>3.0 0.0 0.0</v><v>0.0 4.0 0.0</v><v>0.0 0.0 20.0</v></varray></crystal>
 <varray name="positions"><v>0.0 0.0 0.5</v></varray>"""


def test_a_finished_vasp_run_is_read_with_up_first_and_its_dipole(tmp_path: Path) -> None:
    (tmp_path / "vasprun.xml").write_text(VASPRUN.format(crystal=CRYSTAL, energy=ENERGY))
    found = vasp.read_result(tmp_path)
    assert found.converged
    assert found.engine == "vasp 6.4.2"
    assert (found.energy, found.fermi_level, found.gap) == (-5.0, 0.25, pytest.approx(3.0))
    assert found.k_points.tolist() == [[0.0, 0.0], [0.3, 0.1]]
    assert found.splitting() == pytest.approx(np.array([[0.0, 0.0], [-0.1, 0.1]]))
    assert found.area == pytest.approx(12.0)
    assert np.isnan(found.dipole_z)  # there is no OUTCAR


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
