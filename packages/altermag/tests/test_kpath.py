from __future__ import annotations

import re

import numpy as np
import pytest

from altermag import AltermagError, AltermagWarning, Monolayer, classify, prototypes, stack, tb
from altermag.kpath import forced_zeros, generic_path, irreducible_wedge, ring, standard_path
from altermag.zones import brillouin_zone

PTBR3 = prototypes.ptbr3()
AB = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35)
LINE = stack(PTBR3, "mirror", (0.1, 0.2), distance=6.35)


def area(polygon: np.ndarray) -> float:
    after = np.roll(polygon, -1, axis=0)
    return float(abs((polygon[:, 0] * after[:, 1] - polygon[:, 1] * after[:, 0]).sum()) / 2)


def test_the_zone_of_the_hexagonal_lattice_is_its_hexagon() -> None:
    zone = brillouin_zone(prototypes.hexagonal(6.8))
    assert len(zone) == 6
    assert np.linalg.norm(zone, axis=1) == pytest.approx(np.full(6, 4 * np.pi / (3 * 6.8)))
    assert area(zone) == pytest.approx(4 * np.pi**2 / (6.8**2 * np.sqrt(3) / 2))


@pytest.mark.parametrize("plane", [np.diag([3.0, 5.0]), [[3.0, 0], [1.1, 4.0]], [[3.0, 0], [4.0, 7.0]]])
def test_the_zone_has_the_area_of_the_reciprocal_cell(plane: object) -> None:
    plane = np.array(plane)
    assert area(brillouin_zone(plane)) == pytest.approx(4 * np.pi**2 / np.linalg.det(plane))


def test_the_wedge_is_the_part_of_the_zone_that_the_group_leaves() -> None:
    angles = np.pi / 3 * np.arange(6)
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    group = [turn @ m for turn in turns for m in (np.eye(2), np.diag([1, -1]))]
    plane = prototypes.hexagonal(6.8)
    assert area(irreducible_wedge(plane, group)) == pytest.approx(area(brillouin_zone(plane)) / 12)
    assert area(irreducible_wedge(plane, turns)) == pytest.approx(area(brillouin_zone(plane)) / 6)
    assert area(irreducible_wedge(plane, turns[::3])) == pytest.approx(area(brillouin_zone(plane)) / 2)


def test_the_generic_path_of_ab_goes_through_the_middle_of_the_wedge_and_its_image() -> None:
    path = generic_path(AB)
    assert [label for label, _ in path.ticks] == ["Γ", "k*", "M|K", "k*'", "Γ"]
    # Γ = 0, M = (½, 0), K = (2/3, -1/3): their mean, and its image under the exchange of two wedges.
    assert path.special_points["k*"] == pytest.approx((7 / 18, -1 / 9))
    assert len(path.k_points) == len(path.distances)
    assert (np.diff(path.distances) >= 0).all()


@pytest.mark.parametrize("bilayer", [AB, LINE])
def test_the_model_splits_oppositely_at_the_two_generic_points(bilayer: object) -> None:
    path = generic_path(bilayer)  # type: ignore[arg-type]
    model = tb.from_bilayer(bilayer, orbitals="s")  # type: ignore[arg-type]
    here, there = model.splitting(np.array([path.special_points["k*"], path.special_points["k*'"]]))
    assert np.abs(here).max() > 1e-3
    assert there == pytest.approx(-here, abs=1e-9)


def test_the_standard_path_of_ab_shows_no_splitting_and_says_so() -> None:
    with pytest.warns(AltermagWarning, match="vanish all along the standard path"):
        path = standard_path(AB)
    assert [label for label, _ in path.ticks] == ["Γ", "M", "K", "Γ"]
    assert np.abs(tb.from_bilayer(AB, orbitals="s").splitting(path.k_points)).max() < 1e-9
    assert forced_zeros(classify(AB), path.k_points, AB).all()


@pytest.mark.filterwarnings("error::altermag.errors.AltermagWarning")
def test_the_standard_path_of_a_d_wave_stacking_is_no_trap() -> None:
    path = standard_path(LINE)
    assert not forced_zeros(classify(LINE), path.k_points, LINE).all()


def test_without_flips_the_second_half_uses_the_same_point() -> None:
    path = generic_path(stack(PTBR3, "mirror", (0.13, 0.29), distance=6.35))
    assert path.special_points["k*"] == path.special_points["k*'"]


def test_forced_zeros_are_zeros_of_the_model_and_the_others_are_not() -> None:
    k = np.array([(i / 12, j / 12) for i in range(-6, 7) for j in range(-6, 7)])
    zero = forced_zeros(classify(AB), k, AB)
    splitting = np.abs(tb.from_bilayer(AB, orbitals="s").splitting(k)).max(1)
    assert splitting[zero].max() < 1e-9
    assert splitting[~zero].min() > 1e-6


def test_a_supercell_has_only_the_forced_zeros_of_its_own_zone() -> None:
    # Of the three axes of AB' the 2 x 1 cell keeps one; the others map its lattice onto another.
    doubled = Monolayer.from_structure(PTBR3.structure.make_supercell([2, 1, 1]))
    bilayer = stack(doubled, "mirror", (1 / 6, 2 / 3), distance=6.35)
    model = tb.from_bilayer(bilayer, orbitals="s")
    k = np.array([(i / 6, j / 6) for i in range(-3, 4) for j in range(-3, 4)])
    zero = forced_zeros(classify(bilayer), k, bilayer)
    splitting = np.abs(model.splitting(k)).max(1)
    assert 0 < zero.sum() < len(k)
    assert splitting[zero].max() < 1e-9
    assert splitting[~zero].max() > 1e-3
    path = generic_path(bilayer)
    here, there = model.splitting(np.array([path.special_points["k*"], path.special_points["k*'"]]))
    assert np.abs(here).max() > 1e-3
    assert there == pytest.approx(-here, abs=1e-9)


def test_the_ring_is_round() -> None:
    from altermag.zones import reciprocal

    k = ring(AB, 0.5, 12) @ reciprocal(AB.lattice[:2, :2])
    assert np.linalg.norm(k, axis=1) == pytest.approx(np.full(12, 0.5 * 2 * np.pi / (6.8 * np.sqrt(3))))


def test_ase_takes_the_path() -> None:
    band_path = generic_path(AB).bandpath(AB.lattice)
    assert band_path.path == "GW1M,KW2G"
    assert len(band_path.kpts) == len(generic_path(AB).k_points)


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: ring(AB, 1.5), "radius=1.5"), (lambda: generic_path(AB, spacing=0), "spacing=0")],
)
def test_what_does_not_fit_is_named(call: object, message: str) -> None:
    with pytest.raises(AltermagError, match=re.escape(message)):
        call()  # type: ignore[operator]
