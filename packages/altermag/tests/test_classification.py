from __future__ import annotations

import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altermag import AltermagError, Classification, Monolayer, classify, prototypes, stack, symprec_scan

PTBR3 = prototypes.ptbr3()
NICL2 = prototypes.dihalide("Ni", "Cl", a=3.48, height=1.36)
X, Y, Z = (1, 0, 0), (0, 1, 0), (0, 0, 1)

# Section 2.1: shift, layer group, class, reason of degeneracy, number of spin flips, wave, nodal lines,
# chiral, polar along z; derived by hand and with spglib on built cells.
REVERSED = {
    "AA'": ((0, 0), (79, "p-62m"), "antiferromagnet", "Mz", 6, None, 0, False, False),
    "AB'": ((1 / 3, 2 / 3), (68, "p321"), "altermagnet", None, 3, "i", 6, True, False),
    "BA'": ((2 / 3, 1 / 3), (68, "p321"), "altermagnet", None, 3, "i", 6, True, False),
    "AC'+": ((1 / 3, 0), (13, "cm11"), "compensated-ferrimagnet", None, 0, None, 0, False, True),
    "AC'-": ((-1 / 3, 0), (13, "cm11"), "compensated-ferrimagnet", None, 0, None, 0, False, True),
    "AC' image": ((0, 1 / 3), (13, "cm11"), "compensated-ferrimagnet", None, 0, None, 0, False, True),
    "mirror line": ((0.21, 0), (13, "cm11"), "compensated-ferrimagnet", None, 0, None, 0, False, True),
    "bridge": ((0.5, 0), (36, "cm2e"), "antiferromagnet", "Mz", 2, None, 0, False, False),
    "line": ((0.1, 0.2), (10, "c211"), "altermagnet", None, 1, "d", 2, True, False),
    "generic": ((0.13, 0.29), (1, "p1"), "compensated-ferrimagnet", None, 0, None, 0, True, True),
}
DIRECT = {
    "AA": ((0, 0), (71, "p-31m")),
    "AB": ((1 / 3, 2 / 3), (66, "p-3")),
    "slid": ((1 / 3, 0), (18, "c2/m11")),
    "generic": ((0.13, 0.29), (2, "p-1")),
}


CELLS = [[[1, 0], [0, 1]], [[1, 1], [0, 1]], [[2, 1], [1, 1]], [[2, 0], [0, 1]], [[1, 1], [-1, 2]]]
FIELDS = (
    *("kind", "wave", "wave_3d", "n_nodal_lines", "layer_group", "chiral", "polar_z", "polar_inplane"),
    *("reason", "nodal_directions"),
)


def reversed_ptbr3(shift: tuple[float, float]) -> Classification:
    return classify(stack(PTBR3, "mirror", shift, distance=6.35))


@pytest.mark.parametrize("name", REVERSED)
def test_the_table_of_reversed_ptbr3(name: str) -> None:
    shift, group, kind, reason, flips, wave, nodes, chiral, polar = REVERSED[name]
    found = reversed_ptbr3(shift)
    assert (found.layer_group, found.kind, found.wave, found.n_nodal_lines) == (group, kind, wave, nodes)
    assert (len(found.flip_ops), found.chiral, found.polar_z) == (flips, chiral, polar)
    if reason:
        assert found.reason == reason


@pytest.mark.parametrize("name", DIRECT)
def test_direct_stackings_are_degenerate_by_inversion_and_time_reversal(name: str) -> None:
    shift, group = DIRECT[name]
    found = classify(stack(PTBR3, "identity", shift, distance=6.35))
    assert (found.layer_group, found.kind, found.reason) == (group, "antiferromagnet", "P")


def test_in_1t_layers_the_roles_of_the_two_shifts_are_exchanged() -> None:
    polar = classify(stack(NICL2, "mirror", (1 / 3, 2 / 3), distance=5.75))
    assert (polar.kind, polar.layer_group, polar.polar_z) == ("compensated-ferrimagnet", (69, "p3m1"), True)
    altermagnet = classify(stack(NICL2, "mirror", (1 / 3, 0), distance=5.75))
    assert (altermagnet.kind, altermagnet.layer_group, altermagnet.wave) == ("altermagnet", (10, "c211"), "d")


def test_in_2h_layers_the_mirror_is_the_identity() -> None:
    mono = prototypes.dihalide("V", "S", a=3.2, height=1.5, phase="2H")
    for shift in ((0, 0), (1 / 3, 2 / 3), (0.2, 0.1)):
        mirror, identity = (classify(stack(mono, op, shift, distance=6)) for op in ("mirror", "identity"))
        assert (mirror.kind, mirror.layer_group) == (identity.kind, identity.layer_group)


def test_the_wave_of_ab_is_g_in_space_and_i_in_the_plane() -> None:
    found = reversed_ptbr3((1 / 3, 2 / 3))
    assert (found.wave, found.wave_3d) == ("i", "g")
    assert found.nodal_directions == (0, 30, 60, 90, 120, 150)


def test_what_is_degenerate_in_the_plane_alone_is_an_altermagnet_to_a_checker_of_crystals() -> None:
    # The known mistake: [C2||Mz] leaves k in the plane where it is, but is not ±1 in space.
    bilayer = stack(PTBR3, "mirror", (0, 0), distance=6.35)
    assert classify(bilayer).kind == "antiferromagnet"
    assert classify(bilayer, dim=3).kind == "altermagnet"


def test_spin_point_groups_and_seitz_symbols() -> None:
    ab = reversed_ptbr3((1 / 3, 2 / 3))
    assert ab.spin_point_group == "¹3²2"
    assert {op.seitz for op in ab.keep_ops} == {"[E||1|0,0,0]", "[E||3+_001|0,0,0]", "[E||3-_001|0,0,0]"}
    assert "[C2||2_100|1/3,2/3,0]" in {op.seitz for op in ab.flip_ops}
    assert reversed_ptbr3((0, 0)).spin_point_group == "²-6²2¹m"
    assert reversed_ptbr3((0.5, 0)).spin_point_group == "²m¹m²2"
    assert reversed_ptbr3((0.13, 0.29)).spin_point_group == "¹1"
    assert classify(stack(PTBR3, "identity", (0, 0), distance=6.35)).spin_point_group == "²-3¹m"


def test_the_nodal_lines_of_ab_are_all_high_symmetry_lines() -> None:
    # Section 2.5: Γ-M, Γ-K and M-K; in the hexagon 3 + 3 diameters and the 6 edges.
    lines = reversed_ptbr3((1 / 3, 2 / 3)).nodal_lines()
    through_gamma = [line for line in lines if np.allclose(line[0], -line[1])]
    assert len(lines) == 12
    assert len(through_gamma) == 6
    ends = np.abs(lines.reshape(-1, 2))
    k_and_m = np.array([(1, 1), (1, 2), (2, 1), (1.5, 0), (0, 1.5), (1.5, 1.5)]) / 3
    assert np.abs(ends[:, None] - k_and_m).max(-1).min(-1) == pytest.approx(np.zeros(24), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "along_z", "along_x", "along_y"),
    [  # section 2.8
        ("AA'", "", "z", ""),
        ("AB'", "", "yz", "x"),
        ("AC'+", "xz", "xz", "y"),
        ("bridge", "x", "z", ""),
        ("line", "x", "yz", "x"),
    ],
)
def test_the_table_of_hall_vectors(name: str, along_z: str, along_x: str, along_y: str) -> None:
    found = reversed_ptbr3(REVERSED[name][0])
    assert [found.hall_vector(neel) for neel in (Z, X, Y)] == [set(along_z), set(along_x), set(along_y)]


def test_direct_ab_has_no_hall_vector() -> None:
    found = classify(stack(PTBR3, "identity", (1 / 3, 2 / 3), distance=6.35))
    assert [found.hall_vector(neel) for neel in (X, Y, Z)] == [set(), set(), set()]


def test_ferromagnets_and_ferrimagnets() -> None:
    assert classify(stack(PTBR3, "mirror", (0, 0), distance=6.35, order="fm")).kind == "ferromagnet"
    unequal = np.r_[PTBR3.magmoms, -0.5 * PTBR3.magmoms]
    assert classify(stack(PTBR3, "mirror", (0, 0), distance=6.35, order=unequal)).kind == "ferrimagnet"
    assert classify(PTBR3).kind == "ferromagnet"
    assert classify(stack(PTBR3, "mirror", (0, 0), distance=6.35), magmoms=np.zeros(16)).kind == "nonmagnetic"


def test_moments_are_compared_relative_to_the_largest() -> None:
    # RuO2 in MAGNDATA has moments of 0.05 μB; noise on the anions is a few percent of the moments.
    bilayer = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35)
    noise = np.where(bilayer.magmoms == 0, 0.01, 0.0) * np.arange(16) / 16
    for scale in (1e-3, 1.0, 50.0):
        assert classify(bilayer, magmoms=scale * (bilayer.magmoms + noise)).kind == "altermagnet"


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(sorted(REVERSED)),
    st.integers(0, 10**6),
    st.sampled_from(CELLS),
    st.floats(0.1, 10),
    st.sampled_from([1, -1]),
)
def test_the_class_does_not_depend_on_how_the_bilayer_is_written(
    name: str, seed: int, change: list[list[int]], scale: float, sign: int
) -> None:
    # Origin, supercell or another basis, permutation, scaled moments, a global flip of the spins.
    rng = np.random.default_rng(seed)
    bilayer = stack(PTBR3, "mirror", REVERSED[name][0], distance=6.35)
    supercell = bilayer.structure.make_supercell(np.block([[np.array(change), np.zeros((2, 1))], [0, 0, 1]]))
    order = rng.permutation(len(supercell))
    frac = supercell.frac_coords[order] + np.r_[rng.uniform(-1, 1, 2), 0]
    moments = sign * scale * np.array(supercell.site_properties["magmom"])[order]
    found = classify((supercell.lattice.matrix, frac, [supercell[i].specie.symbol for i in order], moments))
    plain = classify(bilayer)
    for field in FIELDS:
        # In another cell x is along another vector.
        if field != "nodal_directions" or change == [[1, 0], [0, 1]]:
            assert getattr(found, field) == getattr(plain, field), field
    # Which side direction is written first depends on the cell's axes.
    assert sorted(found.spin_point_group) == sorted(plain.spin_point_group)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["mirror", "identity", "inversion", "c2:0", "c2:90"]),
    st.integers(-6, 6),
    st.integers(-6, 6),
)
def test_flips_form_the_other_coset_and_an_altermagnet_has_no_net_moment(op: str, i: int, j: int) -> None:
    found = classify(stack(PTBR3, op, (i / 6, j / 6), distance=6.35))
    assert len(found.flip_ops) in (0, len(found.keep_ops))
    keeps = {op.rotation for op in found.keep_ops}
    for a in found.flip_ops:
        for b in found.flip_ops:
            product = np.array(a.rotation) @ np.array(b.rotation)
            assert tuple(map(tuple, product.tolist())) in keeps
    if found.kind == "altermagnet":
        assert sum(found.magmoms) == pytest.approx(0)


def test_a_classification_survives_json() -> None:
    found = reversed_ptbr3((1 / 3, 2 / 3))
    data = json.loads(json.dumps(found.to_dict()))
    assert Classification.from_dict(data) == found
    assert (data["@class"], data["kind"]) == ("Classification", "altermagnet")
    assert data["spglib"]


def test_monty_decodes_a_classification() -> None:
    from monty.json import MontyDecoder, MontyEncoder

    found = reversed_ptbr3((0.5, 0))
    assert MontyDecoder().decode(json.dumps(found, cls=MontyEncoder)) == found


def test_every_form_of_the_same_bilayer_has_the_same_class(tmp_path: Path) -> None:
    bilayer = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35)
    poscar, made = tmp_path / "POSCAR", tmp_path / "ab.json"
    ase.io.write(poscar, bilayer.atoms, format="vasp")
    made.write_text(json.dumps(bilayer.to_dict()), encoding="utf-8")
    forms = [
        bilayer.structure,
        bilayer.atoms,
        made,
        (bilayer.lattice, bilayer.frac_coords, bilayer.species, bilayer.magmoms),
        (bilayer.lattice, bilayer.frac_coords, bilayer.atoms.numbers, bilayer.magmoms),
    ]
    assert {classify(form).layer_group.number for form in forms} == {68}
    symbols = ase.io.read(poscar).get_chemical_symbols()
    heights = ase.io.read(poscar).get_scaled_positions()[:, 2]
    moments = [(s == "Pt") * (1 if z < 0.5 else -1) for s, z in zip(symbols, heights, strict=True)]
    assert classify(poscar, magmoms=moments).kind == "altermagnet"


def test_a_distorted_structure_changes_its_class_with_the_tolerance() -> None:
    rng = np.random.default_rng(0)
    bilayer = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35)
    noisy = bilayer.frac_coords + 0.01 * rng.uniform(-1, 1, (16, 3)) @ np.linalg.inv(bilayer.lattice)
    scan = symprec_scan((bilayer.lattice, noisy, bilayer.species, bilayer.magmoms), (1e-3, 0.1, 5.0))
    assert [(symprec, found.kind) for symprec, found in scan] == [
        (1e-3, "compensated-ferrimagnet"),
        (0.1, "altermagnet"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magmoms": {"Fe": 1.0}}, "a moment is given for Fe"),
        ({"magmoms": [1.0]}, "16 atoms, but moments of shape (1,)"),
        ({"magmoms": np.eye(16)[:, :3]}, "the moments are not collinear"),
        ({"dim": 1}, "dim=1"),
        ({"mag_tol": 0.0}, "mag_tol=0.0"),
        ({"symprec": 3.0}, "symprec=3.0"),
        ({"obj": 3}, "cannot classify a int"),
        ({"obj": "absent.cif"}, "absent.cif: no such file"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    given = {"obj": stack(PTBR3, "mirror", (0, 0), distance=6.35)} | change
    with pytest.raises(AltermagError, match=re.escape(message)):
        classify(**given)  # type: ignore[arg-type]


def test_noncollinear_moments_are_refused_or_named() -> None:
    vectors = np.eye(16)[:, :3]
    found = classify(stack(PTBR3, "mirror", (0, 0), distance=6.35), magmoms=vectors, allow_noncollinear=True)
    assert (found.kind, found.wave) == ("noncollinear", None)


def test_a_bulk_crystal_is_told_to_be_one() -> None:
    cell = (4.0 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], ["Mn", "Mn"], [1, -1])
    with pytest.raises(AltermagError, match=r"no vacuum: the widest gap is .* dim=3"):
        classify(cell)
    assert classify(cell, dim=3).reason == "translation"
    with pytest.raises(AltermagError, match="the structure carries no moments"):
        classify(cell[:3], dim=3)


def test_symmetry_of_the_images_is_not_symmetry_of_the_layer() -> None:
    # Gap and vacuum equal: two equal layers repeat with half of the cell, which is no operation of the
    # bilayer.
    places = [[0, 0, 0.5], [0.2, 0.3, 0.55]]
    mono = Monolayer.from_arrays(np.diag([4.0, 4.5, 25.0]), places, ["Mn", "Br"], [1, 0])
    found = classify(stack(mono, "identity", (0, 0), gap=20.0, vacuum=20.0))
    assert (found.kind, len(found.flip_ops)) == ("compensated-ferrimagnet", 0)
