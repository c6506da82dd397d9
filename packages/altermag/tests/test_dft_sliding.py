"""Scans and barriers where the energy is a closed form: a spring along z, a washboard in the shift."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes

from altermag import AltermagError, Bilayer, Monolayer, stack
from altermag.dft import gpaw
from altermag.dft.sliding import CalculatorMaker, DistanceScan, distance_scan, sliding_path, with_d3

SPRING, WASHBOARD, REST = 0.8, 0.05, 6.4


class Washboard(Calculator):
    """E = ½ k (d - d0)² + V (1 - cos 2π(2τ1 + τ2)) / 2: the barrier along a1 from 0 to 1/2 is V, at 1/4."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, start: Bilayer, calls: list[int]) -> None:
        super().__init__()
        self.start, self.calls = start, calls

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.calls.append(1)
        top = self.start.layer_of_atom == 1
        here, before = self.atoms.positions, self.start.atoms.positions
        apart = (here[top] - before[top]).mean(0) - (here[~top] - before[~top]).mean(0)
        inverse = np.linalg.inv(self.start.lattice[:2, :2])
        tau = np.array(self.start.shift) + apart[:2] @ inverse
        phase = 2 * np.pi * (2 * tau[0] + tau[1])
        stretch = self.start.distance + apart[2] - REST
        slope = np.r_[WASHBOARD * np.pi * np.sin(phase) * inverse @ [2, 1], SPRING * stretch]
        # Every atom is held to its own layer's middle, which is where the image's stays.
        inner = np.where(top[:, None], (here - before)[top].mean(0), (here - before)[~top].mean(0))
        loose = here - before - inner
        self.results = {
            "energy": SPRING * stretch**2 / 2 + WASHBOARD * (1 - np.cos(phase)) / 2 + (loose**2).sum(),
            "forces": np.where(top[:, None], -slope, slope) / top.sum() - 2 * loose,
        }


@pytest.fixture
def washboard(ptbr3: Monolayer) -> tuple[Bilayer, CalculatorMaker, list[int]]:
    start, calls = stack(ptbr3, "mirror", (0, 0), distance=REST), []
    return start, CalculatorMaker(lambda _: Washboard(start, calls), "washboard"), calls


def test_a_scan_finds_the_rest_of_a_spring_and_computes_no_distance_twice(
    tmp_path: Path, washboard: tuple[Bilayer, CalculatorMaker, list[int]]
) -> None:
    start, calculator, calls = washboard
    scan = distance_scan(start, [6.1, 6.3, 6.6], calculator, tmp_path)
    assert scan.best == pytest.approx(REST, abs=1e-6)
    assert scan.energies[0] == pytest.approx(SPRING * 0.3**2 / 2, abs=1e-9)
    again = distance_scan(start, [6.1, 6.3, 6.6, 6.9], calculator, tmp_path)
    assert again.energies[:3] == scan.energies
    assert len(calls) == 4
    with pytest.raises(AltermagError, match="with another calculator"):
        distance_scan(start, [6.1], calculator, tmp_path, "another")


def test_energies_of_another_calculator_in_the_same_folder_are_refused(
    tmp_path: Path, washboard: tuple[Bilayer, CalculatorMaker, list[int]]
) -> None:
    start, calculator, calls = washboard
    coarse, fine = (CalculatorMaker(calculator.make, gpaw.calculator_of(h=h).inputs) for h in (0.25, 0.2))
    distance_scan(start, [6.1, 6.3], coarse, tmp_path / "scan")
    sliding_path(start, (0.5, 0), coarse, tmp_path / "path", images=3, fmax=2e-3)
    before = len(calls)
    with pytest.raises(AltermagError, match="with another calculator"):
        distance_scan(start, [6.1, 6.3], fine, tmp_path / "scan")
    with pytest.raises(AltermagError, match="with another calculator"):
        sliding_path(start, (0.5, 0), fine, tmp_path / "path", images=3, fmax=2e-3)
    for folder in (tmp_path / "scan", tmp_path / "new"):
        with pytest.raises(AltermagError, match="give inputs, words that say what the calculator is"):
            distance_scan(start, [6.1, 6.3], calculator.make, folder)
    with pytest.raises(AltermagError, match="give inputs"):
        sliding_path(start, (0.5, 0), calculator.make, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert len(calls) == before


def test_a_minimum_at_the_end_of_a_scan_is_none() -> None:
    with pytest.raises(AltermagError, match=r"at the first distance, 6 Å: scan farther"):
        _ = DistanceScan((6.0, 6.2, 6.4), (-2.0, -1.0, 0.0)).best


def test_the_barrier_of_a_washboard_is_its_height_and_lies_half_way(
    tmp_path: Path, washboard: tuple[Bilayer, CalculatorMaker, list[int]]
) -> None:
    start, calculator, calls = washboard
    path = sliding_path(start, (0.5, 0), calculator, tmp_path, images=3, fmax=2e-3)
    assert path.converged
    # The climbing image finds the saddle although no image starts there; 5e-4 is 1%, what fmax leaves.
    assert path.barrier == pytest.approx(WASHBOARD, abs=5e-4)
    x, y = path.shifts[int(np.argmax(path.energies))]
    assert 2 * x + y == pytest.approx(0.5, abs=0.02)  # the whole ridge is as high
    assert path.energies[-1] == pytest.approx(0, abs=1e-9)
    done = len(calls)
    assert sliding_path(start, (0.5, 0), calculator, tmp_path, images=3, fmax=2e-3) == path
    assert len(calls) == done


def test_an_interrupted_path_goes_on_and_names_no_barrier_before(
    tmp_path: Path, washboard: tuple[Bilayer, CalculatorMaker, list[int]]
) -> None:
    start, calculator, _ = washboard
    early = sliding_path(start, (0.5, 0), calculator, tmp_path, images=3, fmax=2e-3, steps=2)
    assert not early.converged
    with pytest.raises(AltermagError, match="did not converge"):
        _ = early.barrier
    assert (tmp_path / "images.traj").exists()
    late = sliding_path(start, (0.5, 0), calculator, tmp_path, images=3, fmax=2e-3)
    assert late.barrier == pytest.approx(WASHBOARD, abs=5e-4)


def test_layers_that_would_overlap_are_refused_before_anything_is_computed(
    tmp_path: Path, washboard: tuple[Bilayer, CalculatorMaker, list[int]]
) -> None:
    start, calculator, calls = washboard
    with pytest.raises(AltermagError, match="overlap"):
        distance_scan(start, [6.4, 3.0], calculator, tmp_path)
    with pytest.raises(AltermagError, match="at least one between"):
        sliding_path(start, (0.5, 0), calculator, tmp_path, images=0)
    assert not calls


def test_dispersion_pulls_the_layers_together(ptbr3: Monolayer) -> None:
    pytest.importorskip("dftd3", reason="dftd3 is not installed: pip install dftd3")
    from ase.calculators.lj import LennardJones

    calculator = with_d3(lambda _: LennardJones(epsilon=0.0))
    bilayer = stack(ptbr3, "mirror", (0, 0), distance=6.4)
    atoms = bilayer.atoms
    atoms.calc = calculator(Path("log"))
    force = atoms.get_forces()[:, 2]
    assert force[bilayer.layer_of_atom == 0].sum() > 0 > force[bilayer.layer_of_atom == 1].sum()
    assert calculator.inputs == ""  # nobody said what it is without the dispersion
    assert with_d3(CalculatorMaker(lambda _: LennardJones(), "LJ")).inputs == "LJ + D3(BJ) of PBE"
