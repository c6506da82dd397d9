"""Models know species and places only, so they witness the classes, waves, nodes and partners that symmetry
gives.

Every fact is checked with the default parameters: nothing in them was chosen for it.
"""

from __future__ import annotations

import numpy as np
import pytest

from altermag import Monolayer, classify, optics, stack, tb
from altermag.kpath import generic_path, standard_path

K = np.random.default_rng(5).random((6, 2))
SILENT, LOUD = 1e-12, 1e-6  # eV
ORDER = {"d": 2, "g": 4, "i": 6}
SHIFTS = [(0, 0), (1 / 3, 2 / 3), (1 / 3, 0), (0.5, 0), (1 / 6, 1 / 3), (0.13, 0.29)]


def square(n: int) -> Monolayer:
    """A layer with an n-fold axis and no more: an atom at a general place and its images under the axis."""
    z, x, y = 0.55, 0.15, 0.27
    images = [(x, y), (-y, x), (-x, -y), (y, -x)][:: 4 // n]
    frac = [(0, 0, 0.5), *((a, b, z) for a, b in images)]
    return Monolayer.from_arrays(np.diag([5.0, 5.0, 22.0]), frac, ["Fe"] + ["S"] * n, {"Fe": 1.0, "S": 0.0})


CASES = [
    (layer, op, shift) for layer in ("BiI3", "1T", "2H") for op in ("mirror", "identity") for shift in SHIFTS
]
CASES += [("MnPS3", "mirror", shift) for shift in SHIFTS] + [("Janus MnPS3", "identity", (0, 0))]
CASES += [("CrSBr", op, shift) for op in ("mirror", "c2z") for shift in ((0.5, 0), (0.21, 0), (0.21, 0.37))]
CASES += [("fourfold", "c2:0", (0, 0)), ("twofold", "s4z", (0, 0)), ("twofold", "c2:0", (0.5, 0))]


@pytest.fixture(scope="module")
def known(layers):
    """Bilayer, class and model of every case."""
    monolayers = {**layers, "fourfold": square(4), "twofold": square(2)}
    found = {}
    for case in CASES:
        bilayer = stack(monolayers[case[0]], case[1], case[2], gap=3.0)
        found[case] = bilayer, classify(bilayer), tb.from_bilayer(bilayer)
    return found


def largest(model, k) -> float:
    return float(np.abs(model.splitting(k)).max())


def test_the_cases_have_every_class_and_every_wave(known):
    assert {c.kind for _, c, _ in known.values()} >= {
        "antiferromagnet",
        "altermagnet",
        "compensated-ferrimagnet",
    }
    assert {c.wave for _, c, _ in known.values()} == {None, "d", "g", "i"}
    assert classify(stack(square(2), "s4z", (0, 0), gap=3.0)).n_nodal_lines == 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_splitting_is_there_exactly_where_the_class_allows_it(known, case):
    _, c, model = known[case]
    at_gamma = largest(model, [0, 0])
    if c.kind == "antiferromagnet":
        assert largest(model, K) < SILENT
    elif c.kind == "altermagnet":
        assert largest(model, K) > LOUD
        assert at_gamma < SILENT
    else:
        assert c.kind == "compensated-ferrimagnet"
        assert at_gamma > LOUD


def test_the_wave_is_the_lowest_harmonic_on_a_ring(known):
    angles = 2 * np.pi * np.arange(48) / 48  # a multiple of 4, 8 and 12: overtones stay apart
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _, c, model in known.values():
        if c.kind == "altermagnet":
            delta = model.splitting(0.15 * ring @ model.lattice.T / (2 * np.pi))
            amplitudes = np.abs(np.fft.rfft(delta, axis=0)).max(1) / 24
            order = ORDER[c.wave]
            assert amplitudes[:order].max() < SILENT
            assert amplitudes[order] > 100 * SILENT


def test_nodal_lines_have_no_splitting_and_the_rest_has(known):
    for _, c, model in known.values():
        if c.kind == "altermagnet":
            t = np.linspace(0, 1, 5)[:, None]
            for start, end in c.nodal_lines():
                assert largest(model, start + t * (end - start)) < 1e-9


def test_partners_have_the_opposite_splitting_at_the_same_k(known):
    labels = set()
    for bilayer, _, model in known.values():
        delta = model.splitting(K)
        for partner in bilayer.partners():
            labels.add(partner.label)
            other = stack(bilayer.monolayer, bilayer.op, partner.shift, distance=bilayer.distance)
            other = other if partner.neel == 1 else other.reverse_neel()
            np.testing.assert_allclose(
                tb.from_bilayer(other).splitting(K), partner.sign * delta, atol=SILENT, err_msg=partner.label
            )
    assert labels >= {"chirality", "polarisation", "Néel reversal"}


@pytest.mark.filterwarnings("ignore::altermag.AltermagWarning")
def test_the_standard_path_of_ab_shows_nothing_and_the_generic_path_does(known):
    bilayer, _, model = known["BiI3", "mirror", (1 / 3, 2 / 3)]
    assert largest(model, standard_path(bilayer).k_points) < SILENT
    assert largest(model, generic_path(bilayer).k_points) > 1e-4


@pytest.mark.parametrize("shift", [(0, 0), (1 / 3, 0), (1 / 3, 2 / 3), (0.5, 0)], ids=str)
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_the_hall_conductivity_is_there_exactly_where_the_hall_vector_has_z(layers, shift, axis):
    bilayer = stack(layers["1T"], "mirror", shift, gap=3.0)
    neel = np.eye(3)["xyz".index(axis)]
    model = tb.from_bilayer(bilayer, "p", soc=0.4, neel=neel)
    hall = optics.kubo(model, [0.7, 1.9], nk=(4, 4), eta=0.1, n_electrons=24).antisymmetric
    if "z" in classify(bilayer).hall_vector(neel):
        assert np.abs(hall).min() > 1e-6
    else:
        assert np.abs(hall).max() < 1e-11
