from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altermag import AltermagError, Monolayer, classify, prototypes, stack, stacking_map
from altermag.kernel import hermite_form, solutions

PTBR3 = prototypes.ptbr3()
OPERATORS = ("mirror", "identity", "inversion", "c2z", "c2:0", "c2:90")
SPECIAL = [(0, 0), (1 / 2, 0), (1 / 3, 2 / 3), (1 / 3, 0), (1 / 4, 1 / 2)]


@pytest.mark.parametrize("name", ["BiI3", "1T", "2H", "CrSBr", "MnPS3", "Janus MnPS3", "striped"])
def test_the_kernel_finds_what_spglib_finds_on_the_built_cell(
    layers: dict[str, Monolayer], name: str
) -> None:
    mono = layers[name]
    rng = np.random.default_rng(7)
    # The lattice of the stripes has its in-plane axes elsewhere.
    axes = ("c2:30", "c2:120") if name == "striped" else OPERATORS[4:]
    for op in (*OPERATORS[:4], *axes):
        shifts = np.array([*SPECIAL, *rng.random((2, 2))])
        found = stacking_map(mono, op, shifts)
        for shift, index in zip(shifts, found.index, strict=True):
            stratum, built = found.strata[index], classify(stack(mono, op, shift, gap=3.3).atoms)
            for field in ("kind", "wave", "n_nodal_lines", "polar_z", "chiral"):
                assert getattr(stratum, field) == getattr(built, field), (op, shift, field)
            counts = len(built.keep_ops), len(built.flip_ops)
            assert (stratum.n_keep, stratum.n_flip) == counts, (op, shift)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(OPERATORS), st.integers(-12, 12), st.integers(-12, 12), st.integers(-3, 3))
def test_a_shift_by_a_lattice_vector_changes_nothing(op: str, i: int, j: int, n: int) -> None:
    shift = np.array([i / 12, j / 12])
    found = stacking_map(PTBR3, op, [shift, shift + np.array([n, -n]), shift])
    assert found.index.tolist() == [found.index[0]] * 3


@pytest.mark.parametrize("change", [[[2, 0], [0, 1]], [[1, 1], [-1, 2]], [[1, 2], [0, 1]]])
def test_a_supercell_gives_the_same_map(change: list[list[int]]) -> None:
    cells = np.block([[np.array(change), np.zeros((2, 1))], [0, 0, 1]])
    big = Monolayer.from_structure(PTBR3.structure.make_supercell(cells))
    shifts = np.array([*SPECIAL, (0.13, 0.29), (0.2, 0.1)])
    inside = shifts @ np.linalg.inv(change)
    assert (
        stacking_map(big, "mirror", inside).kind.tolist()
        == stacking_map(PTBR3, "mirror", shifts).kind.tolist()
    )
    assert (
        stacking_map(big, "mirror", inside).wave.tolist()
        == stacking_map(PTBR3, "mirror", shifts).wave.tolist()
    )


def test_the_origin_of_the_monolayer_does_not_matter_to_the_reversed_stacking() -> None:
    moved = Monolayer.from_arrays(
        PTBR3.lattice, PTBR3.frac_coords + np.array([0.137, 0.291, 0]), PTBR3.species, PTBR3.magmoms
    )
    assert stacking_map(moved, "mirror", 12).kind.tolist() == stacking_map(PTBR3, "mirror", 12).kind.tolist()


def test_another_origin_moves_the_map_of_an_in_plane_axis() -> None:
    # The axis goes through the origin: moving the crystal by o turns τ into τ + (O - 1)o.
    o = np.array([0.137, 0.291])
    moved = Monolayer.from_arrays(
        PTBR3.lattice, PTBR3.frac_coords + np.array([*o, 0]), PTBR3.species, PTBR3.magmoms
    )
    axis_x = np.array([[1, -1], [0, -1]])  # C2 along a1 in the hexagonal basis
    shifts = np.array([*SPECIAL, (0.13, 0.29)])
    there = shifts - o @ (axis_x - np.eye(2)).T
    assert (
        stacking_map(moved, "c2:0", there).kind.tolist() == stacking_map(PTBR3, "c2:0", shifts).kind.tolist()
    )


@pytest.mark.parametrize(
    ("shift", "direction"), [((1 / 3, 2 / 3), (1, 0)), ((0.1, 0.2), (0, 1)), ((0, 0), (1, 0))]
)
def test_near_a_special_position_the_kernel_and_spglib_draw_the_same_line(
    shift: tuple[float, float], direction: tuple[float, float]
) -> None:
    step = np.array(direction) @ np.linalg.inv(PTBR3.lattice[:2, :2])  # 1 Å along x or y
    for part in (0.1, 0.45, 1.2, 3.0):
        near = np.array(shift) + part * PTBR3.symprec * step
        built = classify(stack(PTBR3, "mirror", near, distance=6.35).atoms)
        found = stacking_map(PTBR3, "mirror", [near])
        assert found.kind.tolist() == [built.kind], part


def test_the_operations_are_a_group_at_every_distance_from_a_special_point() -> None:
    # Just outside the tolerance of (0, 0) two of the lines through it may be inside theirs.
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1) @ np.linalg.inv(PTBR3.lattice[:2, :2])
    for radius in np.linspace(0.2, 3, 15) * PTBR3.symprec:
        found = stacking_map(PTBR3, "mirror", radius * circle)
        for stratum in found.strata:
            assert stratum.n_flip in (0, stratum.n_keep)


def test_a_ferromagnetic_order_is_a_ferromagnet_everywhere() -> None:
    assert stacking_map(PTBR3, "mirror", 6, order="fm").counts() == {"ferromagnet": 36}


def test_the_map_of_a_6_x_6_grid_by_hand() -> None:
    # On this grid: (0,0) and 3 bridges are degenerate; AB', BA' and 6 points of the lines (t,2t) are
    # altermagnets.
    found = stacking_map(PTBR3, "mirror", 6)
    assert found.counts() == {"compensated-ferrimagnet": 24, "altermagnet": 8, "antiferromagnet": 4}
    assert found.shifts[8].tolist() == [1 / 6, 2 / 6]
    assert (found.kind[8], found.wave[8], found.n_nodal_lines[8], found.polar_z[8]) == (
        "altermagnet",
        "d",
        2,
        False,
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=4, max_size=4),
    st.lists(st.fractions(0, 1, max_denominator=6), min_size=2, max_size=2),
)
def test_the_hermite_form_has_the_solutions_of_the_congruence(
    entries: list[int], constants: list[Fraction]
) -> None:
    matrix = np.array(entries).reshape(2, 2)
    form = hermite_form(matrix, constants)
    determinant = abs(round(np.linalg.det(matrix)))
    if form is not None and form.rank == 2:
        assert len(set(solutions(form))) == determinant
    for i in range(12):
        for j in range(12):
            shift = Fraction(i, 12), Fraction(j, 12)
            residues = [
                row[0] * shift[0] + row[1] * shift[1] + c
                for row, c in zip(matrix.tolist(), constants, strict=True)
            ]
            expected = all(value.denominator == 1 for value in residues)
            assert (form is not None and form.holds(shift)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shifts": 0}, "shifts=0"),
        ({"shifts": [0.1, 0.2]}, "shifts of shape (2,)"),
        ({"shifts": [[np.nan, 0]]}, "finite fractions"),
        ({"op": "c4z"}, "does not map the lattice onto itself"),
        ({"order": "custom"}, "order='custom'"),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(AltermagError, match=re.escape(message)):
        stacking_map(PTBR3, **arguments)  # type: ignore[arg-type]
