from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.image import imread

from tenfold import Figure
from tenfold.figures import INK, MUTED, PALETTE, save, style


def drawing() -> Canvas:
    with style():
        canvas = Canvas(figsize=(4, 3))
        axes = canvas.subplots()
        axes.plot([1, 2, 3], [1, 4, 9], label="squares")
        axes.set(xlabel="x", ylabel="x²")
        axes.legend()
    return canvas


def test_a_figure_is_saved_for_pages_and_for_print(tmp_path: Path) -> None:
    path = save(drawing(), tmp_path, "squares")
    assert path == tmp_path / "squares.svg"
    root = ElementTree.parse(path).getroot()
    assert (root.get("width"), root.get("height")) == ("288pt", "216pt")  # 72 points an inch
    pixels = imread(tmp_path / "squares.png")
    assert pixels.shape == (600, 800, 4)
    assert pixels[..., 3].min() == 1.0  # opaque
    assert tuple(pixels[0, 0]) == (1, 1, 1, 1)
    first = np.array(to_rgb(PALETTE[0]))
    assert (np.abs(pixels[..., :3] - first).max(-1) < 0.01).any()  # the line has the palette's first colour


def test_the_same_drawing_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (save(drawing(), tmp_path, name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_the_style_ends_with_its_block_and_needs_no_pyplot(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    imported = "matplotlib.pyplot" in sys.modules
    save(drawing(), tmp_path, "a")
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == imported


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        save(drawing(), tmp_path / "nowhere", "a")


def test_a_figure_has_a_file_and_a_caption() -> None:
    figure = Figure(Path("curve.svg"), "The curve.")
    assert (figure.path, figure.caption) == (Path("curve.svg"), "The curve.")


def linear(colour: str) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast_on_white(colour: str) -> float:
    return 1.05 / (float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05)  # WCAG 2, definition of contrast


# Viénot, Brettel and Mollon 1999: what a protanope and a deuteranope see, in linear RGB.
PROTANOPE = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
DEUTERANOPE = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen", [np.eye(3), PROTANOPE, DEUTERANOPE], ids=["all", "protanope", "deuteranope"])
def test_colours_stay_apart_for_every_reader(seen: np.ndarray) -> None:
    for one, other in combinations(PALETTE, 2):
        distance = np.linalg.norm(lab(seen @ linear(one)) - lab(seen @ linear(other)))
        assert distance > 10, (one, other)  # CIE 1976: 2.3 is just noticeable


def test_ink_can_be_read_and_lines_can_be_seen() -> None:
    assert contrast_on_white(INK) > 7
    assert contrast_on_white(MUTED) > 4.5
    assert all(contrast_on_white(colour) > 2 for colour in PALETTE)
