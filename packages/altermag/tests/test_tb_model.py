"""The generic model: graphene and Haldane in closed form, hermiticity, derivatives, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altermag.errors import AltermagError
from altermag.tb import Model
from altermag.tb.bloch import derivatives, gamma_mesh
from altermag.tb.filling import Filling

HEXAGONAL = np.array([[1, 0], [-0.5, np.sqrt(3) / 2]])


def graphene(t=1.0, mass=0.0):
    bonds = [(0, 1, R, t) for R in ((0, 0), (-1, -1), (0, -1))]
    return Model(HEXAGONAL, [(1 / 3, 2 / 3), (2 / 3, 1 / 3)][::-1], bonds, [mass, -mass])


def random_model(seed, n=4):
    rng = np.random.default_rng(seed)
    bonds = {}
    while len(bonds) < 12:
        i, j = rng.integers(n, size=2)
        R1, R2 = rng.integers(-2, 3, size=2)
        if (i, j, R1, R2) not in bonds and (j, i, -R1, -R2) not in bonds and (i != j or (R1, R2) != (0, 0)):
            bonds[int(i), int(j), int(R1), int(R2)] = complex(*rng.normal(size=2))
    hoppings = [(i, j, (R1, R2), t) for (i, j, R1, R2), t in bonds.items()]
    return Model(rng.normal(size=(2, 2)) + 3 * np.eye(2), rng.random((n, 2)), hoppings, rng.normal(size=n))


def test_a_chain_has_its_cosine_band():
    chain = Model(np.diag([2.0, 3.0]), [(0, 0)], [(0, 0, (1, 0), -1.5)], [0.25])
    k = np.linspace(-0.5, 0.5, 11)
    bands = chain.bands(np.stack([k, 0 * k], axis=1))
    np.testing.assert_allclose(bands[:, 0], 0.25 - 3 * np.cos(2 * np.pi * k), atol=1e-14)


def test_graphene_has_width_six_t_and_touches_at_k():
    bands = graphene(2.7, mass=0.5).bands([(0, 0), (1 / 3, 1 / 3), (0.5, 0)])
    np.testing.assert_allclose(bands[:, 1], [np.hypot(3 * 2.7, 0.5), 0.5, np.hypot(2.7, 0.5)], atol=1e-14)
    np.testing.assert_allclose(bands[:, 0], -bands[:, 1], atol=1e-14)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_h_is_hermitian_and_its_derivatives_are_those_of_finite_differences(seed):
    model = random_model(seed)
    k = np.random.default_rng(seed + 1).random((3, 2))
    H, *first, xx, xy, yy = derivatives(np, model.tables, k, 2)
    np.testing.assert_allclose(H, H.conj().transpose(0, 2, 1), atol=1e-14)
    np.testing.assert_allclose(model.velocity(k), first, atol=1e-13)
    step = 1e-5
    to_fractions = model.lattice.T / (2 * np.pi)  # k in fractions = (Cartesian k) @ to_fractions
    for axis, slope, curvature in ((0, first[0], (xx, xy)), (1, first[1], (xy, yy))):
        dk = step * np.eye(2)[axis] @ to_fractions
        forward, backward = (derivatives(np, model.tables, k + sign * dk, 1) for sign in (1, -1))
        scale = np.abs(model.matrices).max()
        np.testing.assert_allclose((forward[0] - backward[0]) / (2 * step), slope, atol=1e-7 * scale)
        for other in (0, 1):
            difference = (forward[1 + other] - backward[1 + other]) / (2 * step)
            np.testing.assert_allclose(difference, curvature[other], atol=1e-6 * scale)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-2, 2), st.integers(-2, 2))
def test_a_reciprocal_lattice_vector_changes_no_band(seed, G1, G2):
    model = random_model(seed)
    k = np.random.default_rng(seed).random((2, 2))
    np.testing.assert_allclose(model.bands(k + np.array([G1, G2])), model.bands(k), atol=1e-12)


def test_collinear_bands_are_those_of_the_two_blocks_and_splitting_is_their_difference():
    base = random_model(3)
    model = base.replace(zeeman=np.array([0.3, -0.3, 0.1, 0.0]))
    k = np.random.default_rng(0).random((5, 2))
    both = model.hamiltonian(k)
    for number, spin in enumerate((1, -1)):
        np.testing.assert_allclose(
            both[number], base.hamiltonian(k) + spin * np.diag(model.zeeman), atol=1e-15
        )
        np.testing.assert_array_equal(both[number], model.hamiltonian(k, spin=spin))
    bands = model.bands(k)
    assert bands.shape == (2, 5, 4)
    np.testing.assert_allclose(model.splitting(k), bands[0] - bands[1], atol=1e-15)
    with pytest.raises(AltermagError, match="only a collinear model"):
        base.splitting(k)
    with pytest.raises(AltermagError, match="not collinear"):
        base.hamiltonian(k, spin=1)


@pytest.mark.parametrize(
    ("hoppings", "said"),
    [
        ([(0, 2, (0, 0), 1.0)], r"hopping \(0, 2, \(0, 0\)\): the states are 0 to 1"),
        ([(0, 1, (1, 0), 1.0), (1, 0, (-1, 0), 1.0)], r"hopping \(1, 0, \(-1, 0\)\) is there already"),
        ([(0, 0, (0, 0), 1.0)], "on-site energies in onsite"),
        ([(0, 1, (0, 0), np.nan)], "finite"),
    ],
)
def test_bonds_that_are_wrong_are_named(hoppings, said):
    with pytest.raises(AltermagError, match=said):
        Model(HEXAGONAL, [(0, 0), (0.5, 0.5)], hoppings, [0, 0])


def test_shapes_lattices_and_k_points_that_are_wrong_are_named():
    with pytest.raises(AltermagError, match=r"positions are \(n, 2\)"):
        Model(HEXAGONAL, [(0, 0, 0)], [], [0])
    with pytest.raises(AltermagError, match="two independent rows"):
        Model([[1, 0], [2, 0]], [(0, 0)], [], [0])
    with pytest.raises(AltermagError, match="no bands along z"):
        graphene().bands([(0, 0, 0.5)])
    with pytest.raises(AltermagError, match="finite fractions"):
        graphene().bands([(0, 0, 0, 0)])
    with pytest.raises(AltermagError, match="no 'feild'"):
        graphene().replace(feild=0.1)
    with pytest.raises(AltermagError, match="no heights"):
        graphene().replace(field=0.1).bands([(0, 0)])


def test_a_filling_has_its_electrons_and_shares_a_degenerate_level():
    levels = np.array([[0.0, 1.0, 1.0, 1.0], [0.5, 1.0, 2.0, 3.0]])
    for n_electrons in (0.5, 1.0, 1.5, 2.25, 3.0, 3.5):
        for kT in (0.0, 0.05):
            filling = Filling.of(levels, n_electrons, n_k=2, kT=kT)
            assert filling.occupations(levels).sum() == pytest.approx(2 * n_electrons, abs=1e-9)
    assert Filling.of(levels, 1.0, 2).fermi == 0.75  # the middle of the gap
    np.testing.assert_allclose(Filling.of(levels, 1.5, 2).occupations(levels)[0], [1, 0.25, 0.25, 0.25])
    with pytest.raises(AltermagError, match="with 4 states a cell"):
        Filling.of(levels, 4, 2)


def test_the_mesh_has_gamma_and_every_point_once():
    mesh = gamma_mesh((3, 4))
    assert mesh[0].tolist() == [0, 0]
    assert len(np.unique(mesh, axis=0)) == 12
