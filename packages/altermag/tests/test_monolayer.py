from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from ase.build import mx2
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from altermag import AltermagError, AltermagWarning, Monolayer, prototypes

MONO = prototypes.ptbr3()
LATTICE, FRAC, SPECIES = MONO.lattice, MONO.frac_coords, list(MONO.species)
UNIMODULAR = [
    np.array(m)
    for m in ([[1, 0], [0, 1]], [[1, 1], [0, 1]], [[0, 1], [1, 0]], [[2, 1], [1, 1]], [[-1, 0], [3, 1]])
]


def test_ptbr3_is_layer_group_71_with_twelve_operations_that_all_keep_the_moments() -> None:
    assert MONO.layer_group == (71, "p-31m")
    assert len(MONO.operations) == 12
    assert (MONO.operations.signs == 1).all()


def test_prototypes_have_their_layer_groups() -> None:
    assert prototypes.dihalide("Ni", "Cl", a=3.48, height=1.36).layer_group == (72, "p-3m1")
    assert prototypes.dihalide("V", "S", a=3.2, height=1.5, phase="2H").layer_group == (78, "p-6m2")


def test_the_neel_order_of_a_honeycomb_is_flipped_by_the_inversion() -> None:
    neel = Monolayer.from_arrays(LATTICE, FRAC, SPECIES, [1, -1, 0, 0, 0, 0, 0, 0])
    inversions = (neel.operations.rotations == -np.eye(3)).all((1, 2))
    assert neel.operations.signs[inversions].tolist() == [-1]
    assert sorted(neel.operations.signs.tolist()) == [-1] * 6 + [1] * 6


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2),
    st.sampled_from(UNIMODULAR),
    st.integers(0, 1000),
    st.integers(0, 2),
    st.floats(-3, 3),
)
def test_any_cell_of_the_layer_is_brought_to_the_frame(
    axis: int, change: np.ndarray, seed: int, tilt: int, lift: float
) -> None:
    rng = np.random.default_rng(seed)
    plane = change @ LATTICE[:2, :2]
    c = np.array([*(tilt * plane[0] / 3), 24.0])
    cartesian = FRAC @ LATTICE
    rows = np.array([[*plane[0], 0], [*plane[1], 0], c])
    frac = (cartesian + np.array([*rng.uniform(-5, 5, 2), lift])) @ np.linalg.inv(rows)
    rows, frac = np.roll(rows, axis + 1, axis=0), np.roll(frac, axis + 1, axis=1)
    rows = rows @ Rotation.random(random_state=seed).as_matrix()
    order = rng.permutation(len(SPECIES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AltermagWarning)
        mono = Monolayer.from_arrays(rows, frac[order] % 1, [SPECIES[i] for i in order], MONO.magmoms[order])
    assert mono.layer_group == (71, "p-31m")
    assert mono.thickness == pytest.approx(MONO.thickness)
    assert mono.lattice[0, 1:] == pytest.approx([0, 0], abs=1e-12)
    assert mono.lattice[1, 1] > 0
    assert mono.heights.max() == pytest.approx(-mono.heights.min())


def test_a_left_handed_cell_is_turned_over_not_mirrored() -> None:
    # Three different heights over three different sites are chiral: the order of species seen from above is
    # kept.
    plane = np.array([[5.0, 0, 0], [-2.5, 4.33, 0], [0, 0, 25]])
    frac = np.array([[0, 0, 0.5], [0.3, 0.1, 0.52], [0.1, 0.6, 0.55]])
    right = Monolayer.from_arrays(plane, frac, ["Pt", "Br", "I"], [1, 0, 0])
    left = Monolayer.from_arrays(plane * [1, 1, -1], frac * [1, 1, 1], ["Pt", "Br", "I"], [1, 0, 0])

    def handedness(mono: Monolayer) -> float:
        cartesian = mono.frac_coords @ mono.lattice
        return float(np.linalg.det(np.vstack([cartesian[1:] - cartesian[0], mono.lattice[0]])))

    # The lattice given with c → -c is the mirror image of the first crystal.
    assert handedness(left) == pytest.approx(-handedness(right))


def test_a_supercell_has_the_same_primitive_cell() -> None:
    big = Monolayer.from_structure(
        MONO.structure.make_supercell([[2, 1, 0], [0, 3, 0], [0, 0, 1]], in_place=False)
    )
    assert len(big.species) == 48
    assert len(big.primitive.species) == 8
    assert big.primitive.layer_group == (71, "p-31m")
    assert MONO.primitive is MONO
    # The change of basis carries a place of one cell to the same place of the other.
    place = np.array([0.21, 0.34])
    inside = place @ big.to_primitive
    assert np.linalg.norm(inside @ big.primitive.lattice[:2, :2]) == pytest.approx(
        np.linalg.norm(place @ big.lattice[:2, :2])
    )


def test_the_magnetic_cell_of_an_antiferromagnetic_layer_is_kept() -> None:
    stripes = MONO.structure.make_supercell([[2, 0, 0], [0, 1, 0], [0, 0, 1]], in_place=False)
    moments = [
        m * (1 if site.frac_coords[0] % 1 < 0.5 else -1)
        for m, site in zip(np.repeat(MONO.magmoms, 2), stripes, strict=True)
    ]
    striped = Monolayer.from_structure(stripes, moments)
    assert striped.primitive is striped
    pure = (striped.operations.rotations == np.eye(3)).all((1, 2))
    assert sorted(striped.operations.signs[pure].tolist()) == [-1, 1]


def test_a_layer_across_the_edge_is_put_together_with_a_note() -> None:
    with pytest.warns(AltermagWarning, match="wrapped across the edge of the cell along c"):
        mono = Monolayer.from_arrays(LATTICE, (FRAC + np.array([0, 0, 0.5])) % 1, SPECIES, {"Pt": 1.0})
    assert mono.thickness == pytest.approx(MONO.thickness)


def test_ase_atoms_without_a_third_vector_are_a_layer() -> None:
    atoms = mx2("VS2", "2H", a=3.18, thickness=3.0, vacuum=None)
    mono = Monolayer.from_atoms(atoms, {"V": 1.0})
    assert mono.layer_group == (78, "p-6m2")
    assert mono.atoms.pbc.tolist() == [True, True, False]
    assert mono.atoms.get_initial_magnetic_moments().tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magmoms": None}, "carries no moments"),
        ({"magmoms": {"Fe": 1.0}}, "a moment is given for Fe; there is only Pt, Br"),
        ({"magmoms": [1.0]}, "8 atoms, but moments of shape (1,)"),
        ({"magmoms": np.zeros(8)}, "all moments are zero"),
        ({"magmoms": np.eye(8)[:, :3]}, "not collinear"),
        ({"magmoms": [np.nan] * 8}, "not a finite number"),
        ({"lattice": np.eye(2)}, "three row vectors"),
        ({"species": ["Qq"] * 8}, "unknown element: Qq"),
        ({"species": ["Pt"]}, "1 species, but fractional coordinates of shape (8, 3)"),
        ({"lattice": np.diag([7.0, 7.0, 5.0])}, "no vacuum: the widest gap is"),
        ({"frac_coords": FRAC * [0.3, 1, 1], "lattice": np.diag([20.0, 7.0, 25.0])}, "a chain or a molecule"),
        ({"vacuum_axis": 3}, "vacuum_axis=3"),
        ({"symprec": 2.0}, "symprec=2.0 must be positive and below half of the shortest distance"),
        ({"frac_coords": FRAC[[0, 0, 2, 3, 4, 5, 6, 7]]}, "atoms 0 (Pt) and 1 (Pt) are 0.000 Å apart"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    given = {"lattice": LATTICE, "frac_coords": FRAC, "species": SPECIES, "magmoms": {"Pt": 1.0}} | change
    with pytest.raises(AltermagError, match=re.escape(message)):
        Monolayer.from_arrays(**given)  # type: ignore[arg-type]
