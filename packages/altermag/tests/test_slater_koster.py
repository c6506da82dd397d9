"""Two-centre integrals against Slater and Koster's table, against rotations, and the algebra of L."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from altermag.errors import AltermagError
from altermag.tb.slater_koster import D_TENSORS, INTEGRALS, angular_momentum, two_centre

S, X, Y, Z, XY, YZ, ZX, X2Y2, Z2 = range(9)
V = dict(zip(INTEGRALS, (-1.4, 1.84, 3.24, -0.81, -0.8, -0.75, 0.34, -1.04, 0.56, 0.13), strict=True))


def test_the_integrals_are_those_of_slater_and_koster_1954_table_1():
    l, m, n = u = np.array([2.0, 3.0, 6.0]) / 7  # noqa: E741
    E = two_centre(u, V)[0]
    r3, a, b = np.sqrt(3), l**2 - m**2, n**2 - (l**2 + m**2) / 2
    table = {
        (S, S): V["sss"],
        (S, X): l * V["sps"],
        (X, X): l**2 * V["pps"] + (1 - l**2) * V["ppp"],
        (X, Y): l * m * (V["pps"] - V["ppp"]),
        (S, XY): r3 * l * m * V["sds"],
        (S, X2Y2): r3 / 2 * a * V["sds"],
        (S, Z2): b * V["sds"],
        (X, XY): r3 * l**2 * m * V["pds"] + m * (1 - 2 * l**2) * V["pdp"],
        (X, YZ): r3 * l * m * n * V["pds"] - 2 * l * m * n * V["pdp"],
        (X, X2Y2): r3 / 2 * l * a * V["pds"] + l * (1 - a) * V["pdp"],
        (Z, X2Y2): r3 / 2 * n * a * V["pds"] - n * a * V["pdp"],
        (X, Z2): l * b * V["pds"] - r3 * l * n**2 * V["pdp"],
        (Z, Z2): n * b * V["pds"] + r3 * n * (l**2 + m**2) * V["pdp"],
        (XY, XY): 3 * l**2 * m**2 * V["dds"]
        + (l**2 + m**2 - 4 * l**2 * m**2) * V["ddp"]
        + (n**2 + l**2 * m**2) * V["ddd"],
        (XY, YZ): 3 * l * m**2 * n * V["dds"]
        + l * n * (1 - 4 * m**2) * V["ddp"]
        + l * n * (m**2 - 1) * V["ddd"],
        (XY, X2Y2): l * m * a * (1.5 * V["dds"] - 2 * V["ddp"] + 0.5 * V["ddd"]),
        (YZ, X2Y2): 1.5 * m * n * a * V["dds"]
        - m * n * (1 + 2 * a) * V["ddp"]
        + m * n * (1 + a / 2) * V["ddd"],
        (XY, Z2): r3 * l * m * (b * V["dds"] - 2 * n**2 * V["ddp"] + (1 + n**2) / 2 * V["ddd"]),
        (X2Y2, X2Y2): 0.75 * a**2 * V["dds"] + (l**2 + m**2 - a**2) * V["ddp"] + (n**2 + a**2 / 4) * V["ddd"],
        (X2Y2, Z2): r3 * a * (b / 2 * V["dds"] - n**2 * V["ddp"] + (1 + n**2) / 4 * V["ddd"]),
        (Z2, Z2): b**2 * V["dds"]
        + 3 * n**2 * (l**2 + m**2) * V["ddp"]
        + 0.75 * (l**2 + m**2) ** 2 * V["ddd"],
    }
    for (first, second), value in table.items():
        assert E[first, second] == pytest.approx(value, abs=1e-12), (first, second)
    parity = np.array([1] + [-1] * 3 + [1] * 5)
    np.testing.assert_allclose(E.T, parity[:, None] * E * parity, atol=1e-15)


def orbital_rotation(R: np.ndarray) -> np.ndarray:
    D = np.zeros((9, 9))
    D[0, 0] = 1
    D[1:4, 1:4] = R
    D[4:, 4:] = np.einsum("aij,bij->ab", D_TENSORS, R @ D_TENSORS @ R.T)
    return D


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_turning_the_bond_turns_the_orbitals(seed, improper):
    rng = np.random.default_rng(seed)
    R = Rotation.random(rng=rng).as_matrix() * (-1 if improper else 1)
    u = rng.normal(size=3)
    u /= np.linalg.norm(u)
    D = orbital_rotation(R)
    np.testing.assert_allclose(two_centre(R @ u, V)[0], D @ two_centre(u, V)[0] @ D.T, atol=1e-12)


def test_angular_momentum_has_its_algebra_its_length_and_textbook_elements():
    L = angular_momentum()
    x, y, z = L
    np.testing.assert_allclose(x @ y - y @ x, 1j * z, atol=1e-15)
    np.testing.assert_allclose(y @ z - z @ y, 1j * x, atol=1e-15)
    np.testing.assert_allclose(L, L.conj().transpose(0, 2, 1), atol=1e-15)
    np.testing.assert_allclose(
        (L @ L).sum(0), np.diag([0] + [2] * 3 + [6] * 5), atol=1e-14
    )  # l(l + 1) for s, p, d
    assert z[X, Y] == pytest.approx(-1j)  # L_z (x + iy) = x + iy
    assert z[X2Y2, XY] == pytest.approx(-2j)
    assert np.abs(z[Z2]).max() == 0


def test_an_angular_momentum_exponentiates_to_the_rotation_of_the_orbitals():
    turn = Rotation.from_rotvec([0.3, -0.5, 0.7])
    values, vectors = np.linalg.eigh(np.tensordot(turn.as_rotvec(), angular_momentum(), 1))
    D = (vectors * np.exp(-1j * values)) @ vectors.conj().T
    np.testing.assert_allclose(D, orbital_rotation(turn.as_matrix()), atol=1e-13)


def test_what_is_no_integral_or_no_direction_is_refused():
    with pytest.raises(AltermagError, match="'spp' is no two-centre integral"):
        two_centre([0, 0, 1], {"spp": 1.0})
    with pytest.raises(AltermagError, match="unit vectors"):
        two_centre([0, 0, 2], V)
