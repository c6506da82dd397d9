"""A tiny real magnet, computed: NiCl2, layers of three atoms, a coarse grid, seconds on one core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from altermag.dft import gpaw, sliding
from altermag.dft.results import DFTResult, check_splitting, in_plane_rotations
from altermag.errors import AltermagError
from altermag.monolayer import Monolayer
from altermag.prototypes import dihalide
from altermag.stacking import Bilayer, stack

pytestmark = pytest.mark.dft
pytest.importorskip("gpaw", reason="GPAW is not installed: make test-dft")

COARSE = {
    "xc": "LDA",
    "basis": "szp(dzp)",
    "h": 0.3,
    "k_mesh": (2, 2),
    "width": 0.05,
    "hubbard": {"Ni": 4.0},
}
NOISE_MEV = 4.0  # of a grid of 0.3 Å; the reported runs use 0.2 Å


def nickel_chloride(shift: tuple[float, float]) -> Bilayer:
    layer = dihalide("Ni", "Cl", a=3.48, height=1.36)
    strong = Monolayer.from_arrays(layer.lattice, layer.frac_coords, layer.species, 2 * layer.magmoms, 2)
    return stack(strong, "mirror", shift, distance=5.75, vacuum=5.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nicl2")


@pytest.fixture(scope="module")
def computed(folder: Path) -> DFTResult:
    return gpaw.run(nickel_chloride((1 / 3, 0)), out=folder, **COARSE)


def test_reversed_nicl2_is_an_altermagnet_with_the_predicted_zeros(computed: DFTResult) -> None:
    flips = in_plane_rotations(nickel_chloride((1 / 3, 0)))[1]
    check = check_splitting(computed, flips, window=4.0)
    assert check.forced_zeros < NOISE_MEV
    assert check.reflection < NOISE_MEV
    assert check.generic > 50
    assert abs(computed.total_moment) < 1e-3
    assert computed.site_moments[[0, 3]] == pytest.approx([1.63, -1.63], abs=0.05)


def test_a_finished_run_is_read_again_and_its_folder_is_its_own(folder: Path, computed: DFTResult) -> None:
    again = gpaw.run(nickel_chloride((1 / 3, 0)), out=folder, **COARSE)
    assert np.array_equal(again.eigenvalues, computed.eigenvalues)
    assert again.seconds == computed.seconds
    with pytest.raises(AltermagError, match="a calculation with another settings"):
        gpaw.run(nickel_chloride((1 / 3, 0)), out=folder, **(COARSE | {"h": 0.28}))


def test_bands_go_on_from_the_density_that_an_interrupted_run_left(folder: Path, computed: DFTResult) -> None:
    (folder / "result.json").unlink()
    before = (folder / "scf.txt").stat().st_mtime
    again = gpaw.run(nickel_chloride((1 / 3, 0)), out=folder, **COARSE)
    assert (folder / "scf.txt").stat().st_mtime == before
    assert again.eigenvalues == pytest.approx(computed.eigenvalues, abs=1e-6)
    assert again.energy == pytest.approx(computed.energy, abs=1e-9)


def test_spin_orbit_coupling_doubles_the_bands_and_leaves_the_sum(folder: Path, computed: DFTResult) -> None:
    bands = gpaw.soc_bands(folder, computed.k_points[:2], neel=(0, 0, 1))
    spin = computed.eigenvalues[:, :2].transpose(1, 0, 2).reshape(2, -1)
    assert bands.shape == spin.shape
    assert bands.sum(1) == pytest.approx(spin.sum(1), abs=1e-6)  # L·S has no trace
    assert np.abs(np.sort(bands) - np.sort(spin)).max() > 1e-3


def test_anisotropy_is_relative_to_the_easiest_axis(folder: Path, computed: DFTResult) -> None:
    found = gpaw.anisotropy(folder, k_mesh=(2, 2))
    assert set(found) == {"x", "y", "z"}
    assert min(found.values()) == 0
    assert max(found.values()) < 5  # meV; a 3d magnet


def test_a_monolayer_relaxes_to_where_forces_vanish_and_is_read_again(tmp_path: Path) -> None:
    high = dihalide("Ni", "Cl", a=3.48, height=1.36)
    settings = COARSE | {"hubbard": {}}
    atoms, energies = gpaw.relax_monolayer(high, [3.48], out=tmp_path, fmax=0.3, **settings)
    assert np.abs(atoms.get_forces()).max() < 0.3
    heights = atoms.positions[:, 2] - atoms.positions[0, 2]
    assert heights[1] == pytest.approx(-heights[2], abs=1e-3)
    first, *_, last = (tmp_path / "a3.4800" / "bfgs.txt").read_text().splitlines()[1:]
    start, force = (float(word) for word in first.split()[-2:])
    assert force > 0.3
    assert atoms.get_potential_energy() == pytest.approx(float(last.split()[-2]), abs=1e-5)
    assert atoms.get_potential_energy() < start
    assert list(energies) == [3.48]
    before = (tmp_path / "a3.4800" / "scf.txt").stat().st_mtime
    again, _ = gpaw.relax_monolayer(high, [3.48], out=tmp_path, fmax=0.3, **settings)
    assert (tmp_path / "a3.4800" / "scf.txt").stat().st_mtime == before
    assert np.array_equal(again.positions, atoms.positions)


def test_scf_that_does_not_converge_is_an_error_and_leaves_no_result(tmp_path: Path) -> None:
    with pytest.raises(gpaw.UnconvergedError, match="SCF did not converge; see"):
        gpaw.run(
            nickel_chloride((1 / 3, 0)), out=tmp_path, **(COARSE | {"max_iterations": 2, "k_mesh": (1, 1)})
        )
    assert not (tmp_path / "result.json").exists()


def test_rigid_layers_that_come_near_repel_each_other(tmp_path: Path) -> None:
    settings = COARSE | {"hubbard": {}}
    bilayer = nickel_chloride((1 / 3, 0))
    scan = sliding.distance_scan(bilayer, [4.8, 5.75], gpaw.calculator_of(**settings), tmp_path)
    assert scan.energies[0] > scan.energies[1] + 0.1
    assert (tmp_path / "d4.8000.txt").exists()
