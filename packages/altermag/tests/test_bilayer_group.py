"""The operations that follow from the monolayer's are those that spglib finds on the built cell."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import spglib
from hypothesis import given, settings
from hypothesis import strategies as st

from altermag import Bilayer, Classification, Monolayer, classify, prototypes, stack
from altermag.bilayer_group import bilayer_operations
from altermag.mapping import Family

PTBR3 = prototypes.ptbr3()
OPERATORS = ("mirror", "identity", "inversion", "c2z", "c2:0", "c2:90")
SHIFTS = [(0, 0), (1 / 2, 0), (1 / 3, 2 / 3), (1 / 3, 0), (0.1, 0.2), (0.137, 0.291)]


def listed(found: Classification) -> list[tuple[object, ...]]:
    """All operations, translations in steps of 1e-4 modulo 1."""
    return sorted(
        (op.rotation, op.flip, tuple(round(1e4 * t) % 10_000 for t in op.translation))
        for op in (*found.keep_ops, *found.flip_ops)
    )


def same_as_spglib(bilayer: Bilayer) -> None:
    derived, built = classify(bilayer), classify(bilayer.atoms)
    assert bilayer_operations(bilayer) is not None
    assert listed(derived) == listed(built)
    ours, theirs = derived.to_dict(), built.to_dict()
    for name in ours.keys() - {"keep_ops", "flip_ops", "frac_coords", "lattice"}:
        assert ours[name] == theirs[name], name


@pytest.mark.parametrize("name", ["BiI3", "1T", "2H", "CrSBr", "MnPS3", "Janus MnPS3"])
def test_the_operations_of_every_stratum_are_those_of_the_built_cell(
    layers: dict[str, Monolayer], name: str
) -> None:
    for op in OPERATORS:
        for shift in SHIFTS:
            same_as_spglib(stack(layers[name], op, shift, gap=3.3))


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(OPERATORS), st.integers(-24, 24), st.integers(-24, 24), st.sampled_from(["afm", "fm"]))
def test_they_are_so_on_a_fine_grid_of_shifts_in_both_orders(op: str, i: int, j: int, order: str) -> None:
    same_as_spglib(stack(PTBR3, op, (i / 12, j / 12), distance=6.35, order=order))


def test_another_origin_of_the_monolayer_is_minded() -> None:
    frac = PTBR3.frac_coords + np.array([0.137, 0.291, 0])
    moved = Monolayer.from_arrays(PTBR3.lattice, frac, PTBR3.species, PTBR3.magmoms)
    for op in OPERATORS:
        same_as_spglib(stack(moved, op, (1 / 3, 2 / 3), distance=6.35))


def test_the_benchmark_of_maps_asks_spglib_about_the_built_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the script sets it where it is not
    file = Path(__file__).parents[1] / "benchmarks" / "map.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_maps", file)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    asked = []
    real = spglib.get_magnetic_symmetry

    def get_magnetic_symmetry(cell: tuple[object, ...], **options: object) -> object:
        asked.append(len(cell[1]))
        return real(cell, **options)

    monkeypatch.setattr(spglib, "get_magnetic_symmetry", get_magnetic_symmetry)
    assert benchmark.by_spglib(stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35)) == "altermagnet"
    assert asked == [16]


def test_spglib_decides_where_the_monolayer_does_not_tell(layers: dict[str, Monolayer]) -> None:
    ab = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35)
    frac = ab.frac_coords.copy()
    frac[3, 0] += 0.01  # one bromine is moved after the stacking
    moved = replace(ab, frac_coords=frac)
    assert bilayer_operations(moved) is None
    assert classify(moved).kind == "compensated-ferrimagnet"
    turned = replace(ab, magmoms=np.abs(ab.magmoms))
    assert bilayer_operations(turned) is None
    assert classify(turned).kind == "ferromagnet"
    custom = stack(PTBR3, "mirror", (1 / 3, 2 / 3), distance=6.35, order=ab.magmoms)
    assert bilayer_operations(custom) is None
    assert classify(custom).kind == "altermagnet"
    # Two translations keep the moments of the doubled cell: its primitive cell is searched as ever.
    doubled = Monolayer.from_structure(PTBR3.structure.make_supercell([2, 1, 1]))
    half = stack(doubled, "mirror", (1 / 6, 2 / 3), distance=6.35)
    assert bilayer_operations(half) is None
    assert classify(half).wave == "i"
    assert bilayer_operations(stack(layers["striped"], "mirror", (0.1, 0), gap=3.3)) is not None


def test_the_code_of_one_shift_is_that_of_an_array() -> None:
    found = Family.of(PTBR3, "mirror").congruences
    shifts = np.array([*SHIFTS, (1 / 3 + 1e-4, 2 / 3), (5e-5, 0)])
    assert [found.code(tuple(shift), 1e-3) for shift in shifts.tolist()] == found.codes(shifts, 1e-3).tolist()
