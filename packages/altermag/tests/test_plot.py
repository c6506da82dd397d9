"""Figures show what they were given; a missing matplotlib and a path that cannot be are told."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from altermag.errors import AltermagError, MissingExtraError
from altermag.tb import Model

plot = pytest.importorskip("altermag.plot", exc_type=ImportError)

KINDS = ["altermagnet", "antiferromagnet", "compensated-ferrimagnet"]


@pytest.fixture(scope="module")
def d_wave():
    """Δ(k) ∝ cos k_x − cos k_y: two sites of opposite exchange, each hopping along its own axis."""
    bonds = [(0, 0, (1, 0), 0.5), (1, 1, (0, 1), 0.5), (0, 1, (0, 0), 0.2)]
    model = Model(3.0 * np.eye(2), [(0, 0), (0.5, 0.5)], bonds, [0, 0])
    return model.replace(zeeman=np.array([-1.0, 1.0]))


def test_the_splitting_map_is_the_model_s_splitting_with_its_sign(d_wave, tmp_path):
    figure = plot.plot_splitting(d_wave, 0, tmp_path / "map.png", points=41)
    image = figure.axes[0].images[0].get_array()
    expected = 1e3 * d_wave.splitting([(0.5, 0), (0, 0.5), (0, 0)])[:, 0]
    np.testing.assert_allclose([image[20, 40], image[40, 20], image[20, 20]], expected, atol=1e-9)
    assert image[20, 40] == pytest.approx(-image[40, 20])
    assert abs(image[20, 40]) > 100
    assert (tmp_path / "map.png").stat().st_size > 5000
    with pytest.raises(AltermagError, match="band is 2"):
        plot.plot_splitting(d_wave, 2)


def test_bands_and_splittings_are_drawn_along_the_path_and_break_where_it_jumps(d_wave):
    k = np.array([[0, 0], [0.25, 0], [0.5, 0], [0, 0.5], [0, 0]])
    distances = np.pi / 3 * np.array([0, 0.5, 1, 1, 2])
    ticks = (("Γ", 0.0), ("X|Y", np.pi / 3), ("Γ", 2 * np.pi / 3))
    upper, lower = plot.plot_bands(d_wave, SimpleNamespace(k_points=k, distances=distances, ticks=ticks)).axes
    energies = np.array([line.get_ydata() for line in upper.lines[:4]]).reshape(2, 2, 6)
    assert np.isnan(energies[..., 3]).all()
    np.testing.assert_allclose(np.delete(energies, 3, axis=2).transpose(0, 2, 1), d_wave.bands(k))
    drawn = np.array([line.get_ydata() for line in lower.lines[:2]])
    np.testing.assert_allclose(np.delete(drawn, 3, axis=1).T, 1e3 * d_wave.splitting(k), atol=1e-9)
    assert [text.get_text() for text in lower.get_xticklabels()] == ["Γ", "X|Y", "Γ"]
    assert [text.get_text() for text in upper.get_legend().get_texts()] == ["up", "down"]


def test_kerr_spectra_are_drawn_in_mrad():
    angles = np.array([1e-3 + 2e-3j, -1e-3j])
    rotation, ellipticity = plot.plot_kerr([1, 2], {"one": angles, "other": -angles}).axes
    np.testing.assert_allclose(rotation.lines[0].get_ydata(), [1, 0])
    np.testing.assert_allclose(ellipticity.lines[1].get_ydata(), [-2, 1])
    assert plot.plot_kerr([1, 2], angles).axes[0].get_legend() is None


def test_a_grid_of_shifts_is_tiles_and_any_other_set_points(tmp_path):
    lattice = np.array([[3.0, 0], [-1.5, 2.6]])
    shifts = np.stack(np.meshgrid(np.arange(4) / 4, np.arange(4) / 4, indexing="ij"), axis=-1).reshape(-1, 2)
    classes = SimpleNamespace(shifts=shifts, kind=np.array([KINDS[i % 3] for i in range(16)]))
    figure = plot.plot_stacking_map(classes, lattice, tmp_path / "map.svg")
    values = figure.axes[0].collections[0].get_array()
    assert len(np.unique(values)) == 3
    assert values.size == 16
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(KINDS)
    assert not figure.axes[0].lines
    # Three shifts of sixteen are fewer than the four of a line: seen as diamonds.
    classes.kind = np.array([KINDS[0]] * 13 + [KINDS[1]] * 3)
    (diamonds,) = plot.plot_stacking_map(classes, lattice).axes[0].lines
    np.testing.assert_allclose(diamonds.get_xydata(), shifts[13:] @ lattice)
    some = SimpleNamespace(shifts=shifts[:5] + 0.01, kind=classes.kind[:5])
    drawn = plot.plot_stacking_map(some, lattice).axes[0].collections[0]
    np.testing.assert_allclose(drawn.get_offsets(), some.shifts @ lattice)


def test_a_path_that_cannot_be_and_a_missing_matplotlib_are_told(tmp_path, monkeypatch):
    with pytest.raises(AltermagError, match=r"map\.xyz"):
        plot.plot_kerr([1], [0j], tmp_path / "map.xyz")
    with pytest.raises(AltermagError, match="cannot be saved"):
        plot.plot_kerr([1], [0j], tmp_path / "no" / "map.png")
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "altermag.plot")
    with pytest.raises(MissingExtraError, match=r"pip install 'altermag\[plot\]'"):
        importlib.import_module("altermag.plot")
