"""Kubo against the Chern number of Haldane's model, sum rules and causality; Kerr against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.constants import fine_structure
from scipy.signal import hilbert

from altermag import optics
from altermag.errors import AltermagError
from altermag.tb import Model
from altermag.tb.bloch import derivatives, gamma_mesh

torch = pytest.importorskip("torch")


def haldane(phi=np.pi / 2, mass=0.0, t1=1.0, t2=0.1):
    lattice = [[1, 0], [0.5, np.sqrt(3) / 2]]
    bonds = [(0, 1, R, t1) for R in ((0, 0), (-1, 0), (0, -1))]
    for R in ((1, 0), (-1, 1), (0, -1)):
        bonds += [(0, 0, R, t2 * np.exp(1j * phi)), (1, 1, R, t2 * np.exp(-1j * phi))]
    return Model(lattice, [(1 / 3, 1 / 3), (2 / 3, 2 / 3)], bonds, [mass, -mass])


@pytest.mark.parametrize(
    ("phi", "mass", "chern", "within"),
    [(np.pi / 2, 0.0, 1, 1e-9), (-np.pi / 2, 0.0, -1, 1e-9), (np.pi / 2, 2.0, 0, 1e-8), (0.0, 0.3, 0, 1e-12)],
)
def test_haldane_has_the_hall_conductivity_of_its_chern_number(phi, mass, chern, within):
    sigma = optics.kubo(haldane(phi, mass), 0.0, nk=(60, 60), eta=1e-6, n_electrons=1)
    assert sigma.antisymmetric[0].real == pytest.approx(chern, abs=within)
    np.testing.assert_allclose(sigma.drude, 0, atol=1e-8)  # an insulator, in its second derivatives too


def formula(model, energies, nk, eta, fermi):
    """Section 2.8 as it is written, both orders of n and m, nothing combined."""
    k = gamma_mesh(nk)
    H, *v = derivatives(np, model.tables, k, 1)
    E, U = np.linalg.eigh(H)
    f = (fermi > E).astype(float)
    v = [U.conj().transpose(0, 2, 1) @ slope @ U for slope in v]
    z = np.asarray(energies)[:, None] + 1j * eta
    sigma = np.zeros((2, 2, len(energies)), dtype=complex)
    for n in range(model.n_states):
        for m in range(model.n_states):
            if n != m:
                w = E[:, m] - E[:, n]
                g = (f[:, m] - f[:, n]) / w
                for a in (0, 1):
                    for b in (0, 1):
                        sigma[a, b] += (g * v[a][:, n, m] * v[b][:, m, n] / (w - z)).sum(1)
    return 2j * np.pi * sigma / (len(k) * model.area)


@pytest.mark.parametrize("eta", [0.05, 1e-5])  # on the grid of transitions, and one by one
def test_kubo_is_its_formula(eta):
    model, energies = haldane(0.7, 0.2), np.array([-1.3, 0.0, 0.4, 1.5, 4.0])
    sigma = optics.kubo(model, energies, nk=(7, 5), eta=eta, fermi=0.1)
    expected = formula(model, energies, (7, 5), eta, 0.1)
    scale = np.abs(expected).max()
    for name, value in (("xx", (0, 0)), ("yy", (1, 1)), ("xy", (0, 1)), ("yx", (1, 0))):
        np.testing.assert_allclose(getattr(sigma, name), expected[value], atol=1e-10 * scale)


def test_torch_gives_the_numbers_of_numpy():
    model = haldane(0.7, 0.2).replace(zeeman=np.array([0.3, -0.1]))
    for extra in ({"n_electrons": 2}, {"fermi": 0.1, "kT": 0.05}, {"n_electrons": 1.37, "eta": 1e-5}):
        options = {"nk": (6, 6), "eta": 0.05, **extra}
        one, other = (optics.kubo(model, [0.3, 2.0], device=device, **options) for device in (None, "cpu"))
        for name in ("xx", "yy", "xy", "yx", "drude"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-10, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_numbers_of_numpy():
    model = haldane(0.7, 0.2)
    one, other = (
        optics.kubo(model, [0.3, 2.0], nk=(24, 24), n_electrons=1, device=device) for device in (None, "cuda")
    )
    for name in ("xx", "yy", "xy", "yx", "drude"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-10, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 3.0), st.floats(-1.0, 1.0), st.floats(0.05, 5.0))
def test_negative_frequencies_conjugate_and_time_reversal_transposes(phi, mass, energy):
    model = haldane(phi, mass)
    options = {"nk": (5, 5), "eta": 0.1, "n_electrons": 1}
    sigma = optics.kubo(model, [energy, -energy], **options)
    for name in ("xx", "yy", "xy", "yx"):
        value = getattr(sigma, name)
        assert value[1] == pytest.approx(np.conj(value[0]), rel=1e-9, abs=1e-12)
    reversed_ = optics.kubo(model.replace(matrices=model.matrices.conj()), [energy], **options)
    assert reversed_.xy[0] == pytest.approx(sigma.yx[0], rel=1e-9, abs=1e-12)  # Onsager


def test_the_response_is_causal():
    energies = np.linspace(-300, 300, 20001)
    sigma = optics.kubo(haldane(0.7, 0.2), energies, nk=(6, 6), eta=0.2, n_electrons=1)
    middle = slice(9667, 10334)  # −10 to 10 eV; the transform is of a finite window
    for response in (sigma.antisymmetric, sigma.xx):
        from_real = hilbert(response.real).imag  # Kramers and Kronig: Im = H[Re]
        np.testing.assert_allclose(from_real[middle], response.imag[middle], atol=1e-4 * abs(response).max())


def test_absorption_has_the_f_sum_of_the_occupied_bands_curvature():
    model, energies = haldane(), np.linspace(0, 200, 20001)  # a gap of 1 eV: the mesh is dense enough
    sigma = optics.kubo(model, energies, nk=(24, 24), eta=0.05, n_electrons=1)
    absorbed = np.trapezoid(sigma.xx.real, energies)
    k, step = gamma_mesh((24, 24)), 1e-4
    dk = step * np.array([1, 0]) @ model.lattice.T / (2 * np.pi)
    _, U = np.linalg.eigh(model.hamiltonian(k))
    curvature = (model.velocity(k + dk)[0] - model.velocity(k - dk)[0]) / (2 * step)
    occupied = np.einsum("ki,kij,kj->", U[:, :, 0].conj(), curvature, U[:, :, 0]).real
    total = 2 * np.pi * occupied / (len(k) * model.area)
    assert absorbed == pytest.approx(np.pi / 2 * total, rel=1e-3)


def test_a_metal_has_the_drude_weight_of_its_fermi_velocity():
    square = Model(2 * np.eye(2), [(0, 0)], [(0, 0, (1, 0), -1.0), (0, 0, (0, 1), -0.6)], [0.0])
    nk, kT = (120, 120), 0.1
    sigma = optics.kubo(square, 1.0, nk=nk, n_electrons=0.3, kT=kT)
    k = gamma_mesh(nk)
    E, v = square.bands(k)[:, 0], square.velocity(k)[:, :, 0, 0].real
    slope = 1 / (4 * kT * np.cosh((E - sigma.fermi) / (2 * kT)) ** 2)
    expected = 2 * np.pi / (len(k) * square.area) * np.einsum("k,ak,bk->ab", slope, v, v)
    np.testing.assert_allclose(sigma.drude, expected, rtol=1e-6, atol=1e-9)
    assert abs(sigma.xx[0]) == 0  # one band has no interband transitions


def test_collinear_spins_add_up():
    model = haldane(0.7, 0.2)
    one = optics.kubo(model, [0.5, 2.0], nk=(6, 6), n_electrons=1)
    both = optics.kubo(model.replace(zeeman=np.zeros(2)), [0.5, 2.0], nk=(6, 6), n_electrons=2)
    np.testing.assert_allclose(both.xy, 2 * one.xy, rtol=1e-12)
    assert both.fermi == pytest.approx(one.fermi)


def test_settings_that_cannot_be_are_refused():
    model = haldane()
    with pytest.raises(AltermagError, match="give one of the two"):
        optics.kubo(model, 0.0)
    with pytest.raises(AltermagError, match="give one of the two"):
        optics.kubo(model, 0.0, n_electrons=1, fermi=0.0)
    with pytest.raises(AltermagError, match="eta=0"):
        optics.kubo(model, 0.0, eta=0, fermi=0.0)
    with pytest.raises(AltermagError, match=r"nk=\(0, 4\)"):
        optics.kubo(model, 0.0, nk=(0, 4), fermi=0.0)
    with pytest.raises(AltermagError, match="nk=12"):
        optics.kubo(model, 0.0, nk=12, fermi=0.0)
    with pytest.raises(AltermagError, match="torch has no device 'tpu'"):
        optics.kubo(model, 0.0, fermi=0.0, device="tpu")
    with pytest.raises(AltermagError, match="n_electrons is 2"):
        optics.kubo(model, 0.0, n_electrons=2)


def test_a_quantum_hall_sheet_has_the_giant_kerr_and_the_universal_faraday_angle():
    assert optics.kerr(0, 1) == pytest.approx(-(np.pi / 2 - np.arctan(fine_structure)), abs=1e-12)
    assert optics.kerr(0, 1).real == pytest.approx(-1.56350, abs=5e-6)
    assert abs(optics.faraday(0, 1)) == pytest.approx(np.arctan(fine_structure), abs=1e-14)
    assert np.arctan(fine_structure) == pytest.approx(7.2972e-3, abs=5e-8)


@settings(max_examples=30, deadline=None)
@given(st.floats(1.2, 4.0), st.floats(0, 3), st.floats(-3, 3), st.floats(-1, 1), st.floats(-1, 1))
def test_small_angles_are_linear_and_odd_in_the_hall_part(n_s, re_xx, im_xx, re_xy, im_xy):
    xx, xy = complex(re_xx, im_xx), 1e-4 * complex(re_xy, im_xy)
    Z0 = 2 * fine_structure
    theta = optics.kerr(xx, xy, n_s)
    assert theta == pytest.approx(-2 * Z0 * xy / ((n_s + Z0 * xx) ** 2 - 1), abs=1e-11)
    assert optics.kerr(xx, -xy, n_s) == pytest.approx(-theta, abs=1e-15)
    assert optics.faraday(xx, -xy, n_s) == pytest.approx(-optics.faraday(xx, xy, n_s), abs=1e-15)


def test_kerr_broadcasts_and_is_nan_where_nothing_is_reflected():
    assert optics.kerr(np.ones(3), 0.1 * np.ones(3), [1.5, 2, 3]).shape == (3,)
    assert np.isnan(optics.kerr(0, 0))
    assert optics.kerr(0, 0, 1.5) == 0
