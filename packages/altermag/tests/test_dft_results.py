from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes

from altermag import AltermagError, Monolayer
from altermag.dft import engines, gpaw
from altermag.dft.folders import own_folder
from altermag.dft.results import (
    PC_PER_M,
    DFTResult,
    check_order,
    check_points,
    check_splitting,
    in_plane_rotations,
)
from altermag.prototypes import TRIHALIDE_STACKINGS, ptbr3
from altermag.stacking import Bilayer, stack


def bilayer(name: str) -> Bilayer:
    return stack(ptbr3(), "mirror", TRIHALIDE_STACKINGS[name], distance=6.35)


def result(layered: Bilayer, splitting: np.ndarray, points: np.ndarray, **changes: object) -> DFTResult:
    middle = np.array([-0.5, -5.0])  # the second band is far below the Fermi level
    half = np.stack([splitting, 100 + 0 * splitting], axis=-1) / 2
    fields = {
        "engine": "none",
        "inputs": {},
        "lattice": layered.lattice,
        "energy": -1.0,
        "converged": True,
        "fermi_level": 0.0,
        "gap": 0.1,
        "total_moment": 0.0,
        "site_moments": layered.magmoms,
        "dipole_z": 0.01,
        "k_points": points,
        "eigenvalues": np.stack([middle + half, middle - half]),
    }
    return DFTResult(**(fields | changes))  # type: ignore[arg-type]


def test_ab_has_three_spin_flip_reflections_and_the_points_hold_whole_orbits() -> None:
    ab = bilayer("AB'")
    keeps, flips = in_plane_rotations(ab)
    assert (len(keeps), len(flips)) == (3, 3)
    points = check_points(ab)
    assert len(points) == 7 + 6  # the named ones, and the six images of the generic one under the group 32


def test_a_distorted_layer_is_searched_with_its_own_tolerance() -> None:
    ideal = ptbr3()
    off = np.random.default_rng(0).normal(size=(8, 3))
    off *= 1e-3 / np.linalg.norm(off, axis=1)[:, None]  # Å
    frac = ideal.frac_coords + off @ np.linalg.inv(ideal.lattice)
    points = {}
    for symprec in (1e-2, 1e-5):
        mono = Monolayer.from_arrays(
            ideal.lattice, frac, ideal.species, ideal.magmoms, 2, symprec=symprec, whole=True
        )
        ab = stack(mono, "mirror", TRIHALIDE_STACKINGS["AB'"], distance=6.35)
        points[symprec] = check_points(ab)
        assert len(in_plane_rotations(ab, symprec=1e-2)[1]) == 3
    assert points[1e-2] == pytest.approx(check_points(bilayer("AB'")))
    assert len(points[1e-5]) == 7 + 1


def test_forced_zeros_of_ab_are_the_standard_path_and_a_generic_splitting_is_not_counted_there() -> None:
    ab = bilayer("AB'")
    points = check_points(ab)
    flips = in_plane_rotations(ab)[1]
    forced = check_splitting(result(ab, np.zeros(len(points)), points), flips).zeros
    assert forced.tolist() == [True] * 7 + [False] * 6
    wave = np.where(forced, 0.0, 0.02)
    check = check_splitting(result(ab, wave, points), flips)
    assert (check.forced_zeros, check.generic) == pytest.approx((0.0, 20.0))
    assert check.reflection == pytest.approx(40.0)  # equal signs at mirror images are as wrong as can be
    assert check.n_pairs == 9 + 3  # three generic points with their three images each, and the three M


def test_bands_far_from_the_fermi_level_do_not_count() -> None:
    ab = bilayer("AB'")
    points = check_points(ab)
    near = result(ab, np.full(len(points), 0.001), points)
    assert near.largest_splitting(3.0) == pytest.approx(0.001)
    assert near.largest_splitting(6.0) == pytest.approx(100.0)


def test_aa_is_forced_to_zero_everywhere_and_ac_nowhere() -> None:
    for name, share in (("AA'", 1.0), ("AC'+", 0.0)):
        layered = bilayer(name)
        points = check_points(layered)
        flips = in_plane_rotations(layered)[1]
        check = check_splitting(result(layered, np.zeros(len(points)), points), flips)
        assert check.zeros.mean() == share, name


def test_polarisation_is_the_dipole_over_the_area() -> None:
    ab = bilayer("AB'")
    area = 6.8**2 * np.sqrt(3) / 2
    assert result(ab, np.zeros(1), np.zeros((1, 2))).polarisation == pytest.approx(0.01 / area * PC_PER_M)


def test_a_result_comes_back_from_its_file_and_what_is_no_result_is_named(tmp_path: Path) -> None:
    ab = bilayer("AB'")
    first = result(ab, np.linspace(0, 0.01, 4), np.arange(8.0).reshape(4, 2))
    first.save(tmp_path / "result.json")
    again = DFTResult.load(tmp_path / "result.json")
    for entry in dataclasses.fields(DFTResult):
        assert np.array_equal(getattr(first, entry.name), getattr(again, entry.name)), entry.name
    monty = pytest.importorskip("monty.json")
    assert isinstance(monty.MontyDecoder().process_decoded(first.as_dict()), DFTResult)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(AltermagError, match="is not a result of a calculation: it has no converged"):
        DFTResult.load(tmp_path / "result.json")


def test_an_unconverged_result_gives_no_splitting() -> None:
    ab = bilayer("AB'")
    with pytest.raises(AltermagError, match="did not converge"):
        result(ab, np.zeros(1), np.zeros((1, 2)), converged=False).splitting()


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([0.4, 0.4, -0.4, -0.4, 0.1], ""),
        ([0.4, -0.4, -0.4, -0.4, 0.0], r"atom 1: \+1.00 became -0.40"),
        ([0.4, 0.4, -0.4, -0.01, 0.0], r"atom 3: -1.00 became -0.01"),
        ([-0.4, -0.4, 0.4, 0.4, 0.0], "atom 0"),  # all turned over: the sign of every splitting is another
    ],
)
def test_moments_that_left_the_requested_order_are_named(found: list[float], problem: str) -> None:
    told = check_order([1, 1, -1, -1, 0], found)
    assert bool(told) == bool(problem)
    if problem:
        with pytest.raises(AssertionError, match=problem):
            raise AssertionError(told)


def test_induced_moments_are_no_part_of_the_order_and_small_magnets_are_measured_by_themselves() -> None:
    assert check_order([1, 0.02], [0.98, 0.018]) == ""
    assert check_order([1, 0.02], [0.98, -0.018]) == ""
    assert "atom 0" in check_order([1, 0.02], [0.04, 0.018])
    assert check_order([0.05, -0.05], [0.03, -0.04]) == ""  # as in RuO2
    assert "atom 1: -0.05 became -0.02" in check_order([0.05, -0.05], [0.03, -0.02])


def test_a_folder_belongs_to_one_calculation(tmp_path: Path) -> None:
    with (
        own_folder(tmp_path / "run", {"h": 0.2, "xc": "PBE"}),
        pytest.raises(AltermagError, match="another process computes here"),
        own_folder(tmp_path / "run", {"h": 0.2, "xc": "PBE"}),
    ):
        pass
    with own_folder(tmp_path / "run", {"h": 0.2, "xc": "PBE"}):
        pass  # the same again
    with (
        pytest.raises(AltermagError, match="a calculation with another h; use another folder"),
        own_folder(tmp_path / "run", {"h": 0.25, "xc": "PBE"}),
    ):
        pass


def test_settings_are_checked_before_anything_runs() -> None:
    assert gpaw.settings_of("lcao-dzp", h=0.25).h == 0.25
    with pytest.raises(AltermagError, match="no preset 'pw'; there are: lcao-dzp"):
        gpaw.settings_of("pw")
    with pytest.raises(AltermagError, match="have no cutoff; there are: xc, basis"):
        gpaw.settings_of("lcao-dzp", cutoff=500)
    assert gpaw.settings_of("lcao-dzp", k_mesh=[6, 6], width=0).k_mesh == [6, 6]
    with pytest.raises(AltermagError, match="h=True; needed: a positive number of Å"):
        gpaw.settings_of("lcao-dzp", h=True)
    with pytest.raises(AltermagError, match="hubbard names Pf, which is no chemical element"):
        gpaw.calculator_of(hubbard={"Pf": 4.0})


def test_hubbard_of_an_element_that_is_not_there_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(AltermagError, match="hubbard names Ni, which the structure does not have"):
        gpaw.run(bilayer("AB'"), out=folder, hubbard={"Ni": 4.0})
    with pytest.raises(AltermagError, match="hubbard names Ni, which the structure does not have"):
        gpaw.relax_at(ptbr3(), 6.8, out=folder, hubbard={"Ni": 4.0})
    assert not folder.exists()


class Spring(Calculator):
    """Holds every atom where it was first; `moments` in μB, an error where there are none."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "magmoms"]

    def __init__(self, moments: list[float] | None) -> None:
        super().__init__()
        self.moments = moments

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if self.moments is None:
            raise Unconverged
        forces = np.zeros((len(atoms), 3))
        self.results = {"energy": -1.0, "forces": forces, "magmoms": np.array(self.moments)}


class Unconverged(Exception):
    """What GPAW raises where SCF does not converge."""


@pytest.mark.parametrize(
    ("moments", "error", "message"),
    [
        (None, gpaw.UnconvergedError, "SCF did not converge; see .*scf.txt"),
        ([1, -1, *[0] * 6], gpaw.WrongOrderError, r"left the requested order \(atom 1: \+1.00 became -1.00"),
    ],
)
def test_a_relaxation_that_goes_wrong_is_told_as_a_run_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moments: list[float] | None,
    error: type[AltermagError],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "gpaw", SimpleNamespace(KohnShamConvergenceError=Unconverged))
    monkeypatch.setattr(gpaw, "_calculator", lambda settings, log: Spring(moments))
    for _ in range(2):  # a finished one is read again, and no better then
        with pytest.raises(error, match=message):
            gpaw.relax_at(ptbr3(), 6.8, out=tmp_path)
    with pytest.raises(error, match=message):
        gpaw.relax_monolayer(ptbr3(), [6.8], out=tmp_path / "lengths")


def test_a_relaxation_that_keeps_the_order_gives_its_atoms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gpaw", SimpleNamespace(KohnShamConvergenceError=Unconverged))
    monkeypatch.setattr(gpaw, "_calculator", lambda settings, log: Spring([0.9, 0.9, *[0.01] * 6]))
    atoms = gpaw.relax_at(ptbr3(), 6.9, out=tmp_path)
    assert atoms.cell.lengths()[:2] == pytest.approx([6.9, 6.9])
    assert atoms.get_potential_energy() == -1.0


def test_without_gpaw_the_message_has_the_whole_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gpaw", None)
    with pytest.raises(ImportError, match=r"CC=g\+\+ CXX=g\+\+ pip install 'altermag\[gpaw\]'"):
        gpaw.run(bilayer("AB'"), out=tmp_path)


def test_the_parabola_finds_the_lattice_constant_and_an_edge_is_refused() -> None:
    energies = {a: 0.5 * (a - 6.83) ** 2 - 20 for a in (6.7, 6.8, 6.9)}
    assert gpaw.best_length(energies) == pytest.approx(6.83)
    with pytest.raises(AltermagError, match="no minimum between"):
        gpaw.best_length({a: 0.5 * (a - 7.5) ** 2 for a in (6.7, 6.8, 6.9)})
    with pytest.raises(AltermagError, match="2 lattice constants have no minimum"):
        gpaw.best_length({6.7: 0.0, 6.8: 1.0})


def test_gpaw_inputs_are_a_structure_and_a_script(tmp_path: Path) -> None:
    ab = bilayer("AB'")
    structure, script = gpaw.write_inputs(ab, tmp_path, "lcao-dzp-fine")
    assert json.loads(structure.read_text())["magmoms"] == ab.magmoms.tolist()
    compile(script.read_text(), str(script), "exec")
    assert "preset='lcao-dzp-fine'" in script.read_text()


def test_engines_are_found_by_their_entry_points() -> None:
    assert engines.engine_names() == ["espresso", "gpaw", "vasp"]
    assert engines.engine("gpaw") is gpaw
    with pytest.raises(AltermagError, match="no engine 'abinit'; there are: espresso, gpaw, vasp"):
        engines.engine("abinit")
