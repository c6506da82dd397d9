from __future__ import annotations

import numpy as np
import pytest

from altermag import Classification, Monolayer, classify, prototypes, stack, tb
from altermag.kpath import ring
from altermag.operations import Operations
from altermag.spin_groups import seitz_rotation, spin_point_group
from altermag.waves import symmetric_characters, wave

PTBR3 = prototypes.ptbr3()
# Section 2.4: the layer groups whose z-flipping operations are in-plane axes and S4z only, with point group,
# wave and number of nodal lines of A-type order (section 2.5).
A_TYPE = {
    **dict.fromkeys((8, 9, 10), ("2", "d", 2)),
    **dict.fromkeys((19, 20, 21, 22), ("222", "d", 2)),
    50: ("-4", "d", 0),
    **dict.fromkeys((53, 54), ("422", "g", 4)),
    **dict.fromkeys((57, 58, 59, 60), ("-42m", "d", 2)),
    **dict.fromkeys((67, 68), ("32", "i", 6)),
    76: ("622", "i", 6),
}


def slab(plane: object, sites: list[tuple[str, float, float, float, float]]) -> Classification:
    """Classify (element, x, y fractions, height in Å, moment) in a cell with 30 Å along z."""
    lattice = np.eye(3) * [1, 1, 30]
    lattice[:2, :2] = plane
    frac = [(x, y, 0.5 + z / 30) for _, x, y, z, _ in sites]
    return classify((lattice, frac, [site[0] for site in sites], [site[4] for site in sites]))


def test_v2se2o_is_d_and_so_is_its_janus_layer() -> None:
    def layer(top: str) -> Classification:
        moments = [("V", 0.5, 0, 0, 1), ("V", 0, 0.5, 0, -1), ("O", 0, 0, 0, 0)]
        return slab(4.0 * np.eye(2), [*moments, (top, 0.5, 0.5, 1.5, 0), ("Se", 0.5, 0.5, -1.5, 0)])

    plain, janus = layer("Se"), layer("Te")
    assert (plain.kind, plain.wave, plain.n_nodal_lines) == ("altermagnet", "d", 2)
    assert (janus.kind, janus.wave, janus.n_nodal_lines, janus.polar_z) == ("altermagnet", "d", 2, True)
    assert plain.nodal_directions == (45, 135)


def test_the_checkerboard_of_fese_is_degenerate_and_its_janus_layer_is_d() -> None:
    def layer(top: str) -> Classification:
        moments = [("Fe", 0, 0, 0, 1), ("Fe", 0.5, 0.5, 0, -1)]
        return slab(3.77 * np.eye(2), [*moments, (top, 0.5, 0, 1.4, 0), ("Se", 0, 0.5, -1.4, 0)])

    assert (layer("Se").kind, layer("Se").reason) == ("antiferromagnet", "P")
    assert (layer("Te").kind, layer("Te").wave) == ("altermagnet", "d")


def test_the_neel_order_of_mnps3_is_degenerate_and_its_janus_layer_is_i_in_the_plane(
    layers: dict[str, Monolayer],
) -> None:
    plain, janus = classify(layers["MnPS3"]), classify(layers["Janus MnPS3"])
    assert (plain.kind, plain.reason) == ("antiferromagnet", "P")
    assert (janus.kind, janus.wave, janus.wave_3d, janus.n_nodal_lines) == ("altermagnet", "i", "g", 6)


def test_the_bilayer_of_amchecks_issue_2_is_degenerate_by_the_mirror() -> None:
    # github.com/amchecker/amcheck, issue 2: RuCl2O, space group 187, called an altermagnet there.
    c = 33.19
    sites = [
        ("Ru", 1 / 3, 2 / 3, -0.04236 * c, 1),
        ("Ru", 1 / 3, 2 / 3, 0.04236 * c, -1),
        ("Cl", 0, 0, -0.09408 * c, 0),
        ("Cl", 0, 0, 0.09408 * c, 0),
        ("O", 0, 0, 0, 0),
    ]
    found = slab(prototypes.hexagonal(3.257), sites)
    assert (found.kind, found.reason) == ("antiferromagnet", "Mz")


@pytest.mark.slow  # pyxtal takes some 10 s to make its tables of 80 groups
def test_of_the_80_layer_groups_17_are_those_of_a_type_altermagnets() -> None:
    symmetry = pytest.importorskip("pyxtal.symmetry", reason="the tables of the 80 layer groups are pyxtal's")
    altermagnetic = {}
    for number in range(1, 81):
        found = symmetry.Group(number, dim=2)[0].ops
        rotations = np.array([np.rint(op.rotation_matrix) for op in found], dtype=np.int64)
        # A-type order: what turns the layers over flips the spins.
        signs = rotations[:, 2, 2]
        planar = rotations[:, :2, :2]
        unit = np.eye(2, dtype=int)
        turned = planar[signs < 0]
        degenerate = any((m == unit).all() or (m == -unit).all() for m in turned)
        if len(turned) and not degenerate:
            altermagnetic[number] = wave(planar, signs)
    assert altermagnetic == {number: name for number, (_, name, _) in A_TYPE.items()}


@pytest.mark.parametrize("number", [8, 10, 19, 50, 53, 57, 67, 68, 76])
def test_a_structure_of_an_altermagnetic_layer_group_has_its_wave(number: int) -> None:
    symmetry = pytest.importorskip("pyxtal.symmetry", reason="the tables of the 80 layer groups are pyxtal's")
    operations = symmetry.Group(number, dim=2)[0].ops
    rotations = np.array([np.rint(op.rotation_matrix) for op in operations])
    translations = np.array([op.translation_vector for op in operations])
    planes = {(8, 10, 19): np.diag([6.1, 7.3]), (50, 53, 57): 7 * np.eye(2)}
    plane = next((p for groups, p in planes.items() if number in groups), prototypes.hexagonal(9.0))
    sites = []
    for element, seed, moment in (("Fe", (0.13, 0.29, 1.1), 1), ("O", (0.41, 0.07, 0.4), 0)):
        for r, t in zip(rotations, translations, strict=True):
            x, y, z = r @ seed + t
            sites.append((element, x, y, z, moment * r[2, 2]))
    found = slab(plane, sites)
    _, name, lines = A_TYPE[number]
    assert found.layer_group is not None
    assert (found.layer_group.number, found.kind, found.wave, found.n_nodal_lines) == (
        number,
        "altermagnet",
        name,
        lines,
    )


def test_the_character_of_a_symmetric_power_is_that_of_the_polynomials() -> None:
    # A fourfold rotation takes (x², xy, y²) to (y², -xy, x²): trace -1; the reflection to (x², -xy, y²):
    # trace 1.
    quarter, reflection = np.array([[0, -1], [1, 0]]), np.diag([1, -1])
    characters = symmetric_characters(np.array([quarter, reflection, np.eye(2, dtype=int)]), 4)
    assert characters[2].tolist() == [-1, 1, 3]
    assert characters[:, 2].tolist() == [1, 2, 3, 4, 5]


def test_names_of_operations() -> None:
    third = np.array([[0, -1, 0], [1, -1, 0], [0, 0, 1]])
    assert seitz_rotation(third) == "3+_001"
    assert seitz_rotation(third @ third) == "3-_001"
    assert seitz_rotation(np.diag([1, 1, -1])) == "m_001"
    assert seitz_rotation(-np.eye(3, dtype=int)) == "-1"
    assert seitz_rotation(np.array([[0, -1, 0], [1, 0, 0], [0, 0, -1]])) == "-4-_001"


def test_the_spin_point_group_of_rutile() -> None:
    # [C2||C4z] with a glide, [E||Mz], [C2||Mx] glide, [E||Mxy]: the spin Laue group of RuO2 and MnF2.
    quarter, xy = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    rotations, signs = [np.eye(3, dtype=int)], [1]
    for generator, sign in ((quarter, -1), (np.diag([1, 1, -1]), 1), (xy, 1)):
        for _ in range(4):
            new = [(generator @ r, sign * s) for r, s in zip(rotations, signs, strict=True)]
            for r, s in new:
                if not any((r == known).all() for known in rotations):
                    rotations.append(r)
                    signs.append(s)
    operations = Operations(np.array(rotations), np.zeros((len(signs), 3)), np.array(signs))
    assert len(operations) == 16
    assert spin_point_group(operations) == "²4/¹m²m¹m"


def test_the_models_splitting_vanishes_on_the_nodal_lines_and_nowhere_generic() -> None:
    for shift in ((1 / 3, 2 / 3), (0.1, 0.2)):
        bilayer = stack(PTBR3, "mirror", shift, distance=6.35)
        model = tb.from_bilayer(bilayer, orbitals="s")
        lines = classify(bilayer).nodal_lines()
        parts = np.linspace(0, 1, 7)[:, None, None]
        on_lines = (lines[None, :, 0] * (1 - parts) + lines[None, :, 1] * parts).reshape(-1, 2)
        assert np.abs(model.splitting(on_lines)).max() < 1e-9
        assert np.abs(model.splitting(np.array([[0.31, 0.12]]))).max() > 1e-3


@pytest.mark.parametrize(("shift", "lowest"), [((1 / 3, 2 / 3), 6), ((1 / 6, 1 / 3), 2), ((1 / 3, 0), 0)])
def test_the_wave_is_the_lowest_harmonic_of_the_models_splitting_on_a_ring(
    shift: tuple[float, float], lowest: int
) -> None:
    bilayer = stack(PTBR3, "mirror", shift, distance=6.35)
    splitting = tb.from_bilayer(bilayer, orbitals="s").splitting(ring(bilayer, 0.3, 48))
    harmonics = np.abs(np.fft.rfft(splitting, axis=0)).max(1)[:8]
    assert np.flatnonzero(harmonics > 1e-6 * harmonics.max())[0] == lowest
