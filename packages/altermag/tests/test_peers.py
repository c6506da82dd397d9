"""Equal answers from other programs, where their question is the same."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import spglib

from altermag import AltermagError, classify, prototypes, stack
from altermag.io import read
from altermag.operations import element_numbers
from altermag.stacking import Bilayer

PTBR3 = prototypes.ptbr3()
SHIFTS = {"AA'": (0, 0), "AB'": (1 / 3, 2 / 3), "bridge": (1 / 2, 0), "line": (0.1, 0.2), "AC'": (1 / 3, 0)}
# One file of each kind of answer; the experiment does all 42.
MEASURED = (
    "0.15_MnF2",
    "0.800_MnTe",
    "0.222_CuMnAs",
    "1.802_CrSBr",
    "0.607_RuO2",
    "0.20_MnTe2",
    "0.299_Fe2O3",
)


@pytest.fixture(params=sorted(SHIFTS))
def bilayer(request: pytest.FixtureRequest) -> Bilayer:
    return stack(PTBR3, "mirror", SHIFTS[request.param], distance=6.35)


@pytest.mark.slow  # amcheck takes 4 s of processor time to import
def test_amcheck_agrees_in_space(bilayer: Bilayer) -> None:
    amcheck = pytest.importorskip("amcheck")
    cell: Any = (bilayer.lattice, bilayer.frac_coords, element_numbers(bilayer.species))
    found: Any = spglib.get_symmetry(cell, symprec=1e-3)
    spins = ["n" if moment == 0 else "u" if moment > 0 else "d" for moment in bilayer.magmoms]
    arguments = (
        list(zip(found["rotations"], found["translations"], strict=True)),
        bilayer.frac_coords,
        found["equivalent_atoms"],
        bilayer.species,
        spins,
    )
    ours = classify(bilayer, dim=3).kind
    if ours == "compensated-ferrimagnet":
        with pytest.raises(ValueError, match="number of up spins"):
            amcheck.is_altermagnet(*arguments)
    else:
        assert amcheck.is_altermagnet(*arguments) == (ours == "altermagnet")


def test_spinspg_has_the_same_operations(bilayer: Bilayer) -> None:
    spinspg = pytest.importorskip("spinspg")
    numbers = np.array(element_numbers(bilayer.species))
    moments = np.outer(bilayer.magmoms, [0, 0, 1])
    _, rotations, translations, spin = spinspg.get_spin_symmetry(
        bilayer.lattice, bilayer.frac_coords, numbers, moments, symprec=1e-3
    )
    found = classify(bilayer, dim=3)
    # About an axis of spins the operation that reverses them is found by what it does to z.
    theirs = {
        (tuple(map(tuple, r.tolist())), bool(s[2, 2] < 0)) for r, s in zip(rotations, spin, strict=True)
    }
    ours = {(op.rotation, op.flip) for op in found.keep_ops + found.flip_ops}
    assert theirs == ours
    assert len(translations) == len(found.operations)


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.filterwarnings("ignore")
def test_measured_magnets_have_their_class_and_wave(name: str) -> None:
    data = pytest.importorskip("tenfold.data", reason="the measured magnets are a data set of tenfold")
    try:
        folder = data.get("magndata-42")
    except data.DataUnavailableError as error:
        pytest.skip(f"magndata-42 is not at hand: {error}")
    table = files("altermag.reproduce").joinpath("magndata.csv").read_text(encoding="utf-8")
    expected = {row["file"]: row for row in csv.DictReader(table.splitlines())}[f"{name}.mcif"]
    crystal = read(folder / f"{name}.mcif")
    structure = (crystal.lattice, crystal.frac_coords, crystal.species, crystal.magmoms)
    if expected["kind_3d"] == "noncollinear":
        with pytest.raises(AltermagError, match="not collinear"):
            classify(structure, dim=3, symprec=1e-2)
        return
    found = classify(structure, dim=3, symprec=1e-2)
    assert (found.kind, found.wave or "") == (expected["kind_3d"], expected["wave_3d"])
