"""Models of stacked PtBr3: what symmetry forces and forbids, seen in bands, charges and Hall conductivity.

Geometry and parameters are those of section 2.7, so that its numbers are golden here.
"""

from __future__ import annotations

import numpy as np
import pytest

from altermag import Monolayer, optics, prototypes, stack, tb
from altermag.errors import AltermagError
from altermag.tb.slater_koster import D_TENSORS

PARAMETERS = tb.Parameters(
    onsite={"Pt": 0.0, "Br": -1.5},
    bonds={("Pt", "Pt"): (0.25, 3.9, 1.3), ("Pt", "Br"): (0.9, 2.5, 0.9), ("Br", "Br"): (0.5, 3.6, 0.8)},
)
SHIFTS = prototypes.TRIHALIDE_STACKINGS | {"line": (1 / 6, 1 / 3)}
K = np.random.default_rng(0).random((12, 2))
SILENT = 1e-12  # eV; rounding gives 1e-14


@pytest.fixture(scope="module")
def mono():
    return prototypes.trihalide("Pt", "Br", a=6.76, x=0.355, height=1.36)


@pytest.fixture(scope="module")
def bilayers(mono):
    return {name: stack(mono, "mirror", shift, distance=6.3) for name, shift in SHIFTS.items()}


@pytest.fixture(scope="module")
def models(bilayers):
    return {name: tb.from_bilayer(bilayer, params=PARAMETERS) for name, bilayer in bilayers.items()}


@pytest.mark.parametrize("name", ["AA'", "bridge"])
def test_mirror_and_glide_forbid_every_splitting(models, name):
    assert np.abs(models[name].splitting(K)).max() < SILENT


def test_direct_stackings_are_degenerate_by_inversion_and_time_reversal(mono):
    for shift in ((1 / 3, 2 / 3), (0.13, 0.29)):
        model = tb.from_bilayer(stack(mono, "identity", shift, distance=6.3), params=PARAMETERS)
        assert np.abs(model.splitting(K)).max() < SILENT


def test_splittings_are_as_large_as_the_specification_says(models):
    largest = {name: np.abs(models[name].splitting(K)).max() for name in ("AB'", "AC'+", "line")}
    assert all(0.01 < value < 0.03 for value in largest.values()), largest
    assert np.abs(models["AC'+"].splitting([0, 0])).max() == pytest.approx(0.44e-3, abs=5e-6)
    for name in ("AB'", "line"):
        assert np.abs(models[name].splitting([0, 0])).max() < SILENT


@pytest.mark.parametrize(("one", "other"), [("AB'", "BA'"), ("AC'+", "AC'-")])
def test_the_other_enantiomer_and_the_other_polarisation_have_the_exact_negative(models, one, other):
    np.testing.assert_allclose(models[one].splitting(K), -models[other].splitting(K), atol=SILENT)


def test_partners_and_the_reversed_neel_vector_have_the_exact_negative(bilayers, models):
    for name in ("AB'", "AC'+", "line"):
        delta = models[name].splitting(K)
        for partner in (bilayers[name].mirror_partner(), bilayers[name].reverse_neel()):
            np.testing.assert_allclose(
                tb.from_bilayer(partner, params=PARAMETERS).splitting(K), -delta, atol=SILENT
            )


def test_ab_has_six_nodal_lines_with_the_boundary_of_the_zone(models):
    t = np.linspace(0, 1, 9)[:, None]
    gamma, m, k = np.array([0, 0]), np.array([0.5, 0]), np.array([1 / 3, 1 / 3])
    for start, end in ((gamma, m), (gamma, k), (m, k)):
        assert np.abs(models["AB'"].splitting(start + t * (end - start))).max() < SILENT
    assert np.abs(models["AB'"].splitting([0.3, 0.1])).max() > 1e-3


def harmonics(model, radius, points=24):
    """Amplitudes of Δ on a ring about Γ by angular order, the largest over bands, meV."""
    angles = 2 * np.pi * np.arange(points) / points
    ring = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    delta = model.splitting(ring @ model.lattice.T / (2 * np.pi))
    return 1e3 * np.abs(np.fft.rfft(delta, axis=0) / points * 2).max(1)


def test_a_ring_shows_the_wave(models):
    ab, line, ac = (harmonics(models[name], 0.2) for name in ("AB'", "line", "AC'+"))
    assert ab[6] > 1
    assert np.delete(ab, [6, 12]).max() < 1e-9  # i wave
    assert line[0] < 1e-9
    assert min(line[[2, 4, 6]]) > 0.1  # d wave and its overtones
    assert ac[0] > 0.1  # a splitting at Γ: Zeeman-like
    for spectrum in (ab, line, ac):
        assert spectrum[1::2].max() < 1e-9  # Δ(−k) = Δ(k)


def test_a_gate_field_splits_gamma_oddly(models):
    gated = {field: tb.gate(models["AB'"], field).splitting([0, 0])[0] for field in (0.05, -0.05)}
    assert np.abs(gated[0.05]).max() > 1e-2
    np.testing.assert_allclose(gated[0.05], -gated[-0.05], atol=SILENT)


def test_the_layers_exchange_charge_where_the_group_is_polar_and_oddly(models):
    dipole = {name: tb.layer_dipole(models[name], (4, 4), 20.5, kT=0.05) for name in SHIFTS}
    assert abs(dipole["AC'+"]) > 0.01  # pC/m
    assert dipole["AC'-"] == pytest.approx(-dipole["AC'+"], abs=1e-9)
    for name in ("AA'", "AB'", "BA'", "bridge", "line"):
        assert abs(dipole[name]) < 1e-9
    assert tb.populations(models["AB'"], (4, 4), 20.5).sum() == pytest.approx(20.5)


def moved_atoms(bilayer, R):
    """The permutation of atoms by an orthogonal R about the lattice's origin, which R maps onto itself."""
    moved = bilayer.frac_coords @ bilayer.lattice @ R.T @ np.linalg.inv(bilayer.lattice)
    difference = moved[:, None] - bilayer.frac_coords
    difference[..., :2] -= np.rint(difference[..., :2])
    distance = np.linalg.norm(difference, axis=-1)
    assert distance.min(1).max() < 1e-9
    return np.argmin(distance, axis=1)


C3 = np.array([[-0.5, -np.sqrt(0.75), 0], [np.sqrt(0.75), -0.5, 0], [0, 0, 1]])


@pytest.mark.parametrize(("name", "R"), [("AB'", C3), ("AC'+", np.diag([1.0, -1, 1]))], ids=["C3", "mirror"])
@pytest.mark.parametrize("orbitals", ["s", "p", "spd"])
def test_h_is_covariant_under_the_threefold_axis_and_the_mirror(bilayers, orbitals, name, R):
    bilayer = bilayers[name]
    model = tb.from_bilayer(bilayer, orbitals, PARAMETERS if orbitals == "s" else None)
    atoms = moved_atoms(bilayer, R)
    D = np.zeros((9, 9))
    D[0, 0], D[1:4, 1:4] = 1, R
    D[4:, 4:] = np.einsum("aij,bij->ab", D_TENSORS, R @ D_TENSORS @ R.T)
    D = D[{"s": np.s_[:1, :1], "p": np.s_[1:4, 1:4], "spd": np.s_[:, :]}[orbitals]]
    move = np.kron(np.eye(len(atoms))[atoms].T, D)
    k = K[:2]
    to_cartesian = 2 * np.pi * np.linalg.inv(model.lattice).T
    k_moved = k @ to_cartesian @ R[:2, :2].T @ np.linalg.inv(to_cartesian)
    for spin in (1, -1):
        H = model.hamiltonian(k, spin)
        np.testing.assert_allclose(model.hamiltonian(k_moved, spin), move @ H @ move.T, atol=1e-12)


@pytest.fixture(scope="module")
def rectangle():
    """A small magnet, so that its models are quick: two atoms in a rectangular cell, reversed and stacked."""
    lattice = np.diag([3.5, 4.2, 20.0])
    layer = Monolayer.from_arrays(
        lattice, [(0, 0, 0.5), (0.5, 0.45, 0.54)], ["Cr", "S"], {"Cr": 1.0, "S": 0.0}
    )
    return stack(layer, "mirror", (0.3, 0.2), distance=5.5)


@pytest.mark.parametrize("orbitals", ["p", "sp", "spd"])
def test_without_coupling_spinors_have_the_bands_of_both_spins_whatever_the_direction(rectangle, orbitals):
    collinear = tb.from_bilayer(rectangle, orbitals)
    spinor = tb.from_bilayer(rectangle, orbitals, soc=1e-14, neel=(1, -2, 0.5))
    assert spinor.spinor
    assert spinor.n_states == 2 * collinear.n_states
    both = np.sort(np.concatenate(collinear.bands(K), axis=1), axis=1)
    np.testing.assert_allclose(spinor.bands(K), both, atol=1e-10)


def test_kramers_pairs_need_the_absence_of_exchange(rectangle):
    free, magnetic = (tb.from_bilayer(rectangle, "p", exchange=J, soc=0.4) for J in (0.0, 1.0))
    for k in ([0, 0], [0.5, 0], [0.5, 0.5]):
        pairs = free.bands(k)[0].reshape(-1, 2)
        np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], atol=1e-12)
    np.testing.assert_allclose(free.bands(K), free.bands(-K), atol=1e-12)
    assert np.ptp(magnetic.bands([0, 0])[0].reshape(-1, 2), axis=1).max() > 1e-3


def test_spin_orbit_coupling_of_an_atom_splits_p_into_its_multiplets():
    lone = Monolayer.from_arrays(np.diag([9.0, 9.0, 20.0]), [(0, 0, 0.5)], ["Br"], [1.0], 2)
    model = tb.from_bilayer(lone, "p", tb.Parameters(onsite={"Br": 0.0}), exchange=0.0, soc={"Br": 0.6})
    np.testing.assert_allclose(model.bands([0.1, 0.2])[0], [-0.6, -0.6, 0.3, 0.3, 0.3, 0.3], atol=1e-12)


@pytest.fixture(scope="module")
def hall(bilayers):
    """σ^A_xy of p models with coupling, by stacking and Néel direction."""

    def antisymmetric(name, neel):
        model = tb.from_bilayer(bilayers[name], "p", soc=0.4, neel=neel)
        return optics.kubo(model, [0.5, 2.0], nk=(3, 3), eta=0.1, n_electrons=80)

    z, x = (0, 0, 1), (1, 0, 0)
    cases = [(name, z) for name in ("AA'", "AB'", "AC'+", "AC'-")] + [("AB'", x), ("BA'", x)]
    return {case: antisymmetric(*case) for case in [*cases, ("AC'+", (0, 0, -1))]}


def test_the_hall_conductivity_is_odd_in_polarisation_and_in_the_neel_vector(hall):
    plus = hall["AC'+", (0, 0, 1)].antisymmetric
    assert np.abs(plus).min() > 1e-3
    for other in (("AC'-", (0, 0, 1)), ("AC'+", (0, 0, -1))):
        np.testing.assert_allclose(hall[other].antisymmetric, -plus, rtol=1e-9)


def test_onsager_exchanges_xy_and_yx_with_the_neel_vector(hall):
    np.testing.assert_allclose(hall["AC'+", (0, 0, 1)].xy, hall["AC'+", (0, 0, -1)].yx, rtol=1e-9)


def test_aa_and_ab_are_silent_for_moments_along_z_and_ab_is_not_along_x(hall):
    for name in ("AA'", "AB'"):
        assert np.abs(hall[name, (0, 0, 1)].antisymmetric).max() < 1e-11
    left, right = (hall[name, (1, 0, 0)].antisymmetric for name in ("AB'", "BA'"))
    assert np.abs(left).min() > 1e-3
    np.testing.assert_allclose(left, right, rtol=1e-9)  # chirality does not flip it


def test_kerr_angles_are_opposite_for_opposite_polarisation(hall):
    angles = {
        name: optics.kerr((s.xx + s.yy) / 2, s.antisymmetric, 1.5)
        for name, s in ((name, hall[name, (0, 0, 1)]) for name in ("AC'+", "AC'-"))
    }
    assert np.abs(angles["AC'+"]).min() > 1e-7
    np.testing.assert_allclose(angles["AC'-"], -angles["AC'+"], rtol=1e-9)


def test_a_monolayer_has_a_model_too(mono):
    model = tb.from_bilayer(mono, params=PARAMETERS)
    assert model.n_states == 8
    assert np.abs(model.splitting(K)).max() > 0.5  # a ferromagnet


def test_choices_that_cannot_be_are_refused(bilayers):
    ab = bilayers["AB'"]
    for options, said in (
        ({"orbitals": "f"}, "orbitals is 'f'"),
        ({"soc": 0.1}, "s orbitals have no spin-orbit coupling"),
        ({"orbitals": "p", "soc": 0.1, "neel": (0, 0, 0)}, "a direction"),
        ({"params": tb.Parameters(integrals={"spx": 1})}, "no two-centre integral"),
        ({"orbitals": "p", "soc": {"Ni": 0.1}}, "soc names Ni, which the structure does not have"),
        ({"orbitals": "p", "soc": {"Pf": 0.1}}, "soc names Pf, which is no chemical element"),
    ):
        with pytest.raises(AltermagError, match=said):
            tb.from_bilayer(ab, **options)
    with pytest.raises(AltermagError, match="cutoff"):
        tb.Parameters(cutoff=0)
    with pytest.raises(AltermagError, match=r"bonds\[\('Pt', 'Br'\)\]"):
        tb.Parameters(bonds={("Pt", "Br"): (0.9, 2.5, 0)})
    with pytest.raises(AltermagError, match="onsite names Bf, which is no chemical element"):
        tb.Parameters(onsite={"Pt": 0.0, "Bf": -1.5})
    with pytest.raises(AltermagError, match="bonds names Pf, which is no chemical element"):
        tb.Parameters(bonds={("Pf", "Br"): (0.9, 2.5, 0.9)})
    tb.from_bilayer(ab, params=tb.Parameters(onsite={"Ni": 0.0}))  # a table may have more elements
    with pytest.raises(AltermagError, match="heights and layers"):
        tb.layer_dipole(tb.Model(np.eye(2), [(0, 0)], [], [0]), (2, 2), 0.5)
