from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altermag import AltermagError, Monolayer, prototypes, stack
from altermag.stacking import parse_shift


def test_the_reversed_layer_lies_above_with_opposite_moments(ptbr3: Monolayer) -> None:
    bilayer = stack(ptbr3, "mirror", (1 / 3, 2 / 3), distance=6.35)
    heights = (bilayer.frac_coords[:, 2] - 0.5) * bilayer.lattice[2, 2]
    assert heights[:8] == pytest.approx(ptbr3.heights - 3.175)
    assert heights[8:] == pytest.approx(-ptbr3.heights + 3.175)
    moved = bilayer.frac_coords[8:, :2] - ptbr3.frac_coords[:, :2] - [1 / 3, 2 / 3]
    assert moved - np.rint(moved) == pytest.approx(np.zeros((8, 2)), abs=1e-12)
    assert bilayer.magmoms.tolist() == [1, 1] + [0] * 6 + [-1, -1] + [0] * 6
    assert bilayer.layer_of_atom.tolist() == [0] * 8 + [1] * 8
    assert bilayer.vacuum == pytest.approx(20)


def test_distance_and_gap_say_the_same(ptbr3: Monolayer) -> None:
    by_gap = stack(ptbr3, "mirror", (0, 0), gap=3.5)
    assert by_gap.distance == pytest.approx(3.5 + ptbr3.thickness)
    assert by_gap.gap == pytest.approx(3.5)


def test_the_reversed_stacking_of_a_centrosymmetric_layer_is_the_one_twisted_by_180_degrees(
    ptbr3: Monolayer,
) -> None:
    # Mz = C2z · I (section 2.1): the same sites, in another order.
    mirror, twist = (stack(ptbr3, op, (0.2, 0.3), distance=6.35) for op in ("mirror", "c2z"))
    for site, name in zip(mirror.frac_coords, mirror.species, strict=True):
        difference = twist.frac_coords - site
        difference -= np.rint(difference)
        (same,) = np.flatnonzero(np.abs(difference).max(1) < 1e-9)
        assert twist.species[same] == name


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["mirror", "identity", "inversion", "c2z", "c2:0", "c2:30", "c2:90"]), st.floats(-2, 2)
)
def test_the_operator_as_a_matrix_is_the_operator(op: str, x: float) -> None:
    mono = prototypes.ptbr3()
    named = stack(mono, op, (x, 0.1), distance=6.35)
    assert stack(mono, named.operator, (x + 1, -0.9), distance=6.35).frac_coords == pytest.approx(
        named.frac_coords, abs=1e-6
    )


def test_mirror_image_twice_and_reversal_twice_give_the_bilayer_back(ptbr3: Monolayer) -> None:
    for op in ("mirror", "identity", "c2:0"):
        bilayer = stack(ptbr3, op, (0.13, 0.29), distance=6.35)
        image = bilayer.mirror_partner()
        assert image.shift == (-0.13, -0.29)
        assert image.magmoms.tolist() == bilayer.magmoms.tolist()
        back = image.mirror_partner()
        assert np.allclose((back.frac_coords - bilayer.frac_coords + 0.5) % 1, 0.5)
        assert bilayer.reverse_neel().magmoms.tolist() == (-bilayer.magmoms).tolist()
        assert bilayer.reverse_neel().reverse_neel().magmoms.tolist() == bilayer.magmoms.tolist()


def test_the_mirror_image_is_the_mirror_image(ptbr3: Monolayer) -> None:
    bilayer = stack(ptbr3, "c2:0", (0.13, 0.29), distance=6.35)
    image = bilayer.mirror_partner()
    flipped = bilayer.frac_coords * [1, 1, -1] + [0, 0, 1]
    flipped[:, :2] -= bilayer.shift
    for site, moment in zip(flipped, bilayer.magmoms, strict=True):
        difference = image.frac_coords - site
        difference -= np.rint(difference)
        (same,) = np.flatnonzero(np.abs(difference).max(1) < 1e-9)
        assert image.magmoms[same] == -moment


def test_all_moments_can_be_given(ptbr3: Monolayer) -> None:
    moments = np.arange(16) - 7.5
    bilayer = stack(ptbr3, "mirror", (0, 0), distance=6.35, order=moments)
    assert bilayer.order == "custom"
    assert bilayer.mirror_partner().mirror_partner().magmoms.tolist() == moments.tolist()


def test_shifts_are_read_exactly() -> None:
    assert parse_shift("1/3, 2/3") == (1 / 3, 2 / 3)
    assert parse_shift(("1/6", 0.25)) == (1 / 6, 0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": (0, 0, 0)}, "needed: two finite in-plane fractions"),
        ({"shift": (np.inf, 0)}, "needed: two finite in-plane fractions"),
        ({"shift": "1/0,0"}, "is not two numbers"),
        ({"op": "c2:17"}, "at 0, 30, 60, 90, 120, 150°"),
        ({"op": "c4z"}, "no four-fold axis"),
        ({"op": "twist"}, "unknown operator 'twist'"),
        ({"op": np.ones((3, 3))}, "an operator is an orthogonal matrix"),
        ({"op": [[0, 0, 1], [0, 1, 0], [1, 0, 0]]}, "mixes z with the plane"),
        ({"distance": 2.0}, "the layers overlap: Br below and Br above are"),
        ({"distance": None}, "exactly one of distance"),
        ({"gap": 3.0}, "exactly one of distance"),
        ({"distance": -6.0}, "needed: a positive number"),
        ({"order": "ferri"}, "order='ferri'"),
        ({"order": [1, -1]}, "needed: 16 finite moments"),
        ({"vacuum": 0}, "vacuum=0"),
    ],
)
def test_what_does_not_fit_is_named(ptbr3: Monolayer, arguments: dict[str, object], message: str) -> None:
    given = {"op": "mirror", "shift": (0, 0), "distance": 6.35} | arguments
    with pytest.raises(AltermagError, match=re.escape(message)):
        stack(ptbr3, **given)  # type: ignore[arg-type]
