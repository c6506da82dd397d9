from __future__ import annotations

import numpy as np
import pytest

from altermag import Monolayer, prototypes


def rectangular() -> Monolayer:
    """A layer of CrSBr's kind, layer group pmmn: every site at (x, y, z) has one at (x + ½, y + ½, -z)."""
    sites = {"Cr": (0.0, 0.0, 0.7), "S": (0.0, 0.5, 0.9), "Br": (0.0, 0.0, 2.9)}
    frac, species = [], []
    for name, (x, y, z) in sites.items():
        frac += [(x, y, 0.5 + z / 25), (x + 0.5, y + 0.5, 0.5 - z / 25)]
        species += [name] * 2
    return Monolayer.from_arrays(np.diag([3.5, 4.76, 25.0]), frac, species, {"Cr": 3.0})


def neel_honeycomb(top: str = "S") -> Monolayer:
    """A layer of MnPS3's kind with antiparallel moments in the layer; Janus if `top` is another chalcogen."""
    metal = prototypes.trihalide("Mn", "S", a=6.08, x=0.34, height=1.6)
    c = metal.lattice[2, 2]
    frac = np.vstack([metal.frac_coords, [[0, 0, 0.5 + 1.1 / c], [0, 0, 0.5 - 1.1 / c]]])
    species = ["Mn"] * 2 + [top] * 3 + ["S"] * 3 + ["P"] * 2
    return Monolayer.from_arrays(metal.lattice, frac, species, [1, -1] + [0] * 8)


def striped() -> Monolayer:
    """A 1T layer in stripes, 2 x 1: a translation flips all moments."""
    mono = prototypes.dihalide("Ni", "Cl", a=3.48, height=1.36)
    frac = np.vstack([mono.frac_coords / [2, 1, 1], mono.frac_coords / [2, 1, 1] + [0.5, 0, 0]])
    lattice = mono.lattice * [[2], [1], [1]]
    return Monolayer.from_arrays(lattice, frac, mono.species * 2, [1, 0, 0, -1, 0, 0])


@pytest.fixture(scope="session")
def ptbr3() -> Monolayer:
    return prototypes.ptbr3()


@pytest.fixture(scope="session")
def layers(ptbr3: Monolayer) -> dict[str, Monolayer]:
    """Kinds of monolayers, the last three with an antiferromagnetic order of their own."""
    return {
        "BiI3": ptbr3,
        "1T": prototypes.dihalide("Ni", "Cl", a=3.48, height=1.36),
        "2H": prototypes.dihalide("V", "S", a=3.2, height=1.5, phase="2H"),
        "CrSBr": rectangular(),
        "MnPS3": neel_honeycomb(),
        "Janus MnPS3": neel_honeycomb("Se"),
        "striped": striped(),
    }
