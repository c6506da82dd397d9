from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altermag import (
    AltermagError,
    Monolayer,
    classify,
    enumerate_stackings,
    prototypes,
    special_positions,
    stack,
    stacking_map,
    tb,
)

PTBR3 = prototypes.ptbr3()


def test_the_special_positions_of_a_reversed_trihalide() -> None:
    # Section 2.3: points (0,0); (½,0) three times; (1/3,2/3) twice; lines (t,0) and (t,2t); generic.
    found = special_positions(PTBR3)
    assert [position.dimension for position in found] == [0, 0, 0, 1, 1, 2]
    points = [
        {(round(6 * x) % 6, round(6 * y) % 6) for x, y in position.equivalent} for position in found[:3]
    ]
    assert points == [{(0, 0)}, {(3, 0), (0, 3), (3, 3)}, {(2, 4), (4, 2)}]
    assert [position.multiplicity for position in found] == [1, 3, 2, 6, 6, 12]
    kinds = [position.stratum.kind for position in found]
    assert kinds == [
        "antiferromagnet",
        "antiferromagnet",
        "altermagnet",
        "compensated-ferrimagnet",
        "altermagnet",
        "compensated-ferrimagnet",
    ]
    assert found[3].shift == pytest.approx((1 / 3, 0))
    x, y = found[4].shift
    assert (y - 2 * x) % 1 == pytest.approx(0)


def test_the_map_lists_the_same_positions() -> None:
    assert stacking_map(PTBR3, "mirror", 2).special_positions() == special_positions(PTBR3)


@pytest.mark.parametrize("name", ["1T", "2H", "CrSBr", "MnPS3"])
@pytest.mark.parametrize("op", ["mirror", "c2:0"])
def test_no_grid_point_has_operations_that_no_special_position_has(
    layers: dict[str, Monolayer], name: str, op: str
) -> None:
    listed = {position.stratum for position in special_positions(layers[name], op)}
    assert set(stacking_map(layers[name], op, 24).strata) <= listed


def test_equivalent_shifts_are_of_one_class(layers: dict[str, Monolayer]) -> None:
    for mono in layers.values():
        for position in special_positions(mono.primitive, "mirror"):
            found = stacking_map(mono.primitive, "mirror", position.equivalent)
            assert set(found.strata) == {position.stratum}


def test_no_two_positions_are_equivalent(layers: dict[str, Monolayer]) -> None:
    for mono in layers.values():
        shifts = [
            tuple(np.round(np.array(shift) % 1, 6) % 1)
            for position in special_positions(mono, "inversion")
            for shift in position.equivalent
        ]
        assert len(shifts) == len(set(shifts))


def test_enumerated_bilayers_are_built_with_the_generic_one_last() -> None:
    found = enumerate_stackings(PTBR3, ops=("mirror", "identity"))
    assert [bilayer.op for bilayer in found] == ["mirror"] * 6 + ["identity"] * 4
    assert [classify(found[i]).layer_group.number for i in (0, 1, 2, 3, 4, 5)] == [79, 36, 68, 13, 10, 1]
    assert found[0].gap == pytest.approx(3.3)
    assert enumerate_stackings(PTBR3, gap=4.0)[0].gap == pytest.approx(4.0)


@pytest.mark.parametrize(("op", "same"), [("mirror", "mirror"), ("c2:30", "c2:0"), ("c2:0", "c2:90")])
def test_a_rotated_supercell_is_enumerated_alike(op: str, same: str) -> None:
    # a1' = a1 - a2 of the √3 cell is at -30° from a1: angles from it are 30° larger.
    cells = np.array([[1, -1, 0], [1, 2, 0], [0, 0, 1]])
    big = Monolayer.from_structure(PTBR3.structure.make_supercell(cells))
    expected = [classify(bilayer).layer_group for bilayer in enumerate_stackings(PTBR3, ops=(same,))]
    found = [classify(bilayer).layer_group for bilayer in enumerate_stackings(big, ops=(op,))]
    assert sorted(found) == sorted(expected)


def test_denominators_too_small_are_named() -> None:
    with pytest.raises(AltermagError, match="raise max_denominator"):
        special_positions(PTBR3, max_denominator=1)


def test_partners_of_the_named_stackings() -> None:
    ab = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35).partners()
    assert [(p.label, p.sign, p.neel, p.operation) for p in ab] == [
        ("chirality", -1, 1, "Mz"),
        ("Néel reversal", -1, -1, "1"),
    ]
    assert ab[0].shift == pytest.approx((2 / 3, 1 / 3))
    ac = stack(PTBR3, "mirror", (1 / 3, 0), distance=6.35).partners()
    assert (ac[0].label, ac[0].shift) == ("polarisation", pytest.approx((2 / 3, 0)))
    assert stack(PTBR3, "mirror", (0, 0), distance=6.35).partners() == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 11), st.integers(0, 11))
def test_the_partner_of_the_partner_is_the_bilayer(i: int, j: int) -> None:
    bilayer = stack(PTBR3, "mirror", (i / 12, j / 12), distance=6.35)
    for partner in bilayer.partners():
        if partner.neel == 1:
            back = stack(PTBR3, "mirror", partner.shift, distance=6.35).partners()
            shifts = [np.array(p.shift) - bilayer.shift for p in back if p.neel == 1]
            assert any(np.abs(shift - np.rint(shift)).max() < 1e-9 for shift in shifts)


@pytest.mark.parametrize(
    ("op", "shift"),
    [("mirror", (1 / 3, 2 / 3)), ("mirror", (1 / 3, 0)), ("mirror", (1 / 6, 1 / 3)), ("c2:0", (0.13, 0.29))],
)
def test_the_models_splitting_is_the_negative_in_every_partner(op: str, shift: tuple[float, float]) -> None:
    k = np.random.default_rng(1).uniform(-0.5, 0.5, (12, 2))
    bilayer = stack(PTBR3, op, shift, distance=6.35)
    here = tb.from_bilayer(bilayer, orbitals="s").splitting(k)
    assert np.abs(here).max() > 1e-4
    for partner in bilayer.partners():
        other = stack(PTBR3, op, partner.shift, distance=6.35)
        other = other if partner.neel == 1 else other.reverse_neel()
        there = tb.from_bilayer(other, orbitals="s").splitting(k)
        assert there == pytest.approx(partner.sign * here, abs=1e-9)
