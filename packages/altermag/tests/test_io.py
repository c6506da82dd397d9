from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest

from altermag import AltermagError, MissingExtraError, Monolayer, classify, prototypes, stack
from altermag.io import from_pymatgen, read

PTBR3 = prototypes.ptbr3()

# Rutile with the moments of MnF2: space group P4_2'/mnm' of the first setting, written for this test.
MCIF = """data_test
_cell_length_a 4.87
_cell_length_b 4.87
_cell_length_c 3.31
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_space_group_symop_magn_operation.id
_space_group_symop_magn_operation.xyz
1 x,y,z,+1
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Mn1 Mn 0 0 0 1
Mn2 Mn 0.5 0.5 0.5 1
F1 F 0.305 0.305 0 1
F2 F 0.695 0.695 0 1
F3 F 0.805 0.195 0.5 1
F4 F 0.195 0.805 0.5 1
loop_
_atom_site_moment_label
_atom_site_moment_crystalaxis_x
_atom_site_moment_crystalaxis_y
_atom_site_moment_crystalaxis_z
Mn1 0 0 4.6
Mn2 0 0 -4.6
"""


@pytest.mark.parametrize("name", ["layer.cif", "POSCAR", "layer.json", "layer.xyz"])
def test_a_written_monolayer_is_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("json"):
        crystal = {"lattice": PTBR3.lattice.tolist(), "frac_coords": PTBR3.frac_coords.tolist()}
        path.write_text(json.dumps(crystal | {"species": list(PTBR3.species)}), encoding="utf-8")
    else:
        ase.io.write(path, PTBR3.atoms, **({"format": "vasp"} if name == "POSCAR" else {}))
    mono = Monolayer.from_file(path, magmoms={"Pt": 1.0})
    assert mono.layer_group == (71, "p-31m")
    assert mono.thickness == pytest.approx(PTBR3.thickness)
    assert sorted(mono.magmoms.tolist()) == [0.0] * 6 + [1.0] * 2


def test_a_bilayer_keeps_its_moments_through_pymatgen_ase_and_json(tmp_path: Path) -> None:
    bilayer = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35)
    path = tmp_path / "ab.json"
    path.write_text(json.dumps(bilayer.to_dict()), encoding="utf-8")
    for crystal in (read(path), from_pymatgen(bilayer.structure)):
        assert crystal.magmoms is not None
        assert crystal.magmoms.tolist() == bilayer.magmoms.tolist()
    pymatgen_json = tmp_path / "structure.json"
    pymatgen_json.write_text(bilayer.structure.to_json(), encoding="utf-8")
    assert classify(pymatgen_json).layer_group == classify(bilayer).layer_group


def test_moments_on_species_are_read() -> None:
    structure = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35).structure
    structure.add_spin_by_site(structure.site_properties["magmom"])
    structure.remove_site_property("magmom")
    assert classify(structure).kind == "altermagnet"


def test_magcif_is_read_with_cartesian_moments(tmp_path: Path) -> None:
    path = tmp_path / "rutile.mcif"
    path.write_text(MCIF, encoding="utf-8")
    crystal = read(path)
    assert crystal.magmoms is not None
    assert crystal.magmoms[:2] == pytest.approx(np.array([[0, 0, 4.6], [0, 0, -4.6]]))
    found = classify(path, dim=3)
    assert (found.kind, found.wave, found.space_group) == ("altermagnet", "d", (136, "P4_2/mnm"))
    assert found.spin_point_group == "²4/¹m²m¹m"


def test_a_magcif_without_pymatgen_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rutile.mcif"
    path.write_text(MCIF, encoding="utf-8")
    monkeypatch.setitem(sys.modules, "pymatgen.io.cif", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'altermag[pymatgen]'")):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "{", "not JSON"),
        ("x.json", '{"lattice": []}', "no frac_coords, species"),
        ("x.json", "[1]", "needed: lattice"),
        ("x.json", '{"lattice": "a", "frac_coords": [], "species": []}', "must be numbers"),
        ("x.cif", "no structure", "not a structure that ASE can read"),
        ("x.mcif", "data_x", "pymatgen cannot read it"),
        ("x.mcif", MCIF.split("loop_\n_atom_site_moment_label")[0], "a magCIF without moments"),
        (
            "x.cif",
            MCIF.replace("Mn1 Mn 0 0 0 1", "Mn1 Mn 0 0 0 0.5").replace(".id\n", "\n"),
            "partially occupied",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(AltermagError, match=re.escape(message)):
        read(path)


def test_a_molecule_of_ase_is_no_layer() -> None:
    from ase.build import molecule

    with pytest.raises(AltermagError, match="periodic along 0 directions"):
        Monolayer.from_atoms(molecule("O2"))
