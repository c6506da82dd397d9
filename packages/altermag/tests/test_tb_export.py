"""Exported models have our bands in the program that they are for."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from altermag import Monolayer, stack, tb
from altermag.errors import MissingExtraError

K = np.random.default_rng(1).random((6, 2))


@pytest.fixture(scope="module")
def bilayer():
    lattice = [[3.5, 0, 0], [-1.0, 4.2, 0], [0, 0, 20]]
    layer = Monolayer.from_arrays(
        lattice, [(0, 0, 0.5), (0.5, 0.45, 0.54)], ["Cr", "S"], {"Cr": 1.0, "S": 0.0}
    )
    return stack(layer, "mirror", (0.3, 0.2), distance=5.5)


@pytest.fixture(scope="module")
def models(bilayer):
    near = tb.Parameters(cutoff=5.0)
    return {
        "collinear": tb.gate(tb.from_bilayer(bilayer, "s", near), 0.03),
        "spinor": tb.from_bilayer(bilayer, "p", tb.Parameters(cutoff=4.0), soc=0.3, neel=(1, 2, 3)),
    }


def pythtb_bands(model, k):
    return model.solve_ham(k) if hasattr(model, "solve_ham") else np.transpose(model.solve_all(k))


def expected(model, spin):
    bands = model.bands(K)
    if model.zeeman is None:
        return bands
    return np.sort(np.concatenate(bands, axis=1), axis=1) if spin is None else bands[0 if spin == 1 else 1]


@pytest.mark.parametrize(
    ("kind", "spin"), [("collinear", 1), ("collinear", -1), ("collinear", None), ("spinor", None)]
)
def test_pythtb_has_our_bands(models, kind, spin):
    pytest.importorskip("pythtb")
    exported = tb.to_pythtb(models[kind], spin)
    np.testing.assert_allclose(pythtb_bands(exported, K), expected(models[kind], spin), atol=1e-10)


@pytest.mark.parametrize(("kind", "spin"), [("collinear", -1), ("spinor", None)])
def test_the_wannier90_file_has_our_bands(models, kind, spin, tmp_path):
    model = models[kind]
    lines = tb.to_wannier90_hr(model, tmp_path / "wannier90_hr.dat", spin).read_text().splitlines()
    n, count = int(lines[1]), int(lines[2])
    assert n == model.n_states
    header = 3 + -(-count // 15)
    assert sum(len(line.split()) for line in lines[3:header]) == count
    terms = np.array([line.split() for line in lines[header:]], dtype=float)
    assert terms.shape == (count * n * n, 7)
    assert terms[:2, 3:5].tolist() == [[1, 1], [2, 1]]  # the first index runs fastest
    R, (i, j) = terms[:, :2], terms[:, 3:5].astype(int).T - 1
    H = np.zeros((len(K), n, n), dtype=complex)
    for number, phase in enumerate(np.exp(2j * np.pi * K @ R.T)):
        np.add.at(H[number], (i, j), phase * (terms[:, 5] + 1j * terms[:, 6]))
    np.testing.assert_allclose(np.linalg.eigvalsh(H), expected(model, spin), atol=1e-12)


def test_pythtb_reads_the_wannier90_file(models, tmp_path):
    pythtb = pytest.importorskip("pythtb")
    model = models["collinear"]
    tb.to_wannier90_hr(model, tmp_path / "layer_hr.dat", 1)
    rows = np.zeros((3, 3))
    rows[:2, :2], rows[2, 2] = model.lattice, 20
    cell = "\n".join(" ".join(map(str, row)) for row in rows)
    (tmp_path / "layer.win").write_text(f"begin unit_cell_cart\nang\n{cell}\nend unit_cell_cart\n")
    centres = "\n".join(f"X {x} {y} 0.0" for x, y in model.positions @ model.lattice)
    (tmp_path / "layer_centres.xyz").write_text(f"{model.n_states}\n\n{centres}\n")
    reader = pythtb.W90 if hasattr(pythtb, "W90") else pythtb.w90
    read = reader(str(tmp_path), "layer").model()
    k = np.pad(K, ((0, 0), (0, 1)))
    np.testing.assert_allclose(pythtb_bands(read, k), expected(model, 1), atol=1e-10)


def test_without_pythtb_the_extra_is_named(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "pythtb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'altermag\[tb\]'"):
        tb.to_pythtb(models["collinear"])
