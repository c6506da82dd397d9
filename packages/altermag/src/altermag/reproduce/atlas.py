"""The theory that the package stands on, over all 80 layer groups: S1 and S2.

Monolayers are random: atoms on general positions of a layer group, so that nothing of a material comes in.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from altermag.classification import Classification, classify
from altermag.errors import AltermagError
from altermag.judging import judge
from altermag.monolayer import Monolayer
from altermag.operations import Operations
from altermag.special import enumerate_stackings
from altermag.stacking import stack
from tenfold import Trial, TrialContext

Floats = NDArray[np.float64]

GROUPS = range(1, 81)
ALTERMAGNETIC = (8, 9, 10, 19, 20, 21, 22, 50, 53, 54, 57, 58, 59, 60, 67, 68, 76)
"""Layer groups of A-type altermagnets, as Zeng and Zhao counted them and we derived them."""
POINT_GROUP_OF = {
    **dict.fromkeys((8, 9, 10), "2"),
    **dict.fromkeys((19, 20, 21, 22), "222"),
    50: "-4",
    **dict.fromkeys((53, 54), "422"),
    **dict.fromkeys((57, 58, 59, 60), "-42m"),
    **dict.fromkeys((67, 68), "32"),
    76: "622",
}
GAP = 4.0
"""Å between the layers."""
HEIGHT = 1.5
"""Å: atoms lie within this distance of the mid-plane."""


class AtlasConfig(BaseModel):
    """How monolayers of all layer groups are made and stacked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(min_length=1, description="of the random monolayers")
    operators: tuple[str, ...] = Field(
        min_length=1, description="left out where a lattice does not allow one"
    )


def layer_operations(group: int) -> tuple[NDArray[np.int64], Floats]:
    """Return a layer group's operations from pyxtal's tables: rotations (n, 3, 3), translations (n, 3)."""
    from pyxtal.symmetry import Group

    found = Group(group, dim=2)[0].ops
    rotations = np.array([np.rint(operation.rotation_matrix) for operation in found], dtype=np.int64)
    return rotations, np.array([operation.translation_vector for operation in found], dtype=float)


def random_monolayer(group: int, rng: np.random.Generator) -> Monolayer:
    """Return a ferromagnetic monolayer of the group: orbits of two elements on general positions."""
    rotations, translations = layer_operations(group)
    plane = _random_plane(group, np.sqrt(len(rotations) / 2), rng)
    lattice = np.zeros((3, 3))
    lattice[:2, :2], lattice[2, 2] = plane, 20.0
    for _ in range(200):
        seeds = rng.uniform((0, 0, -HEIGHT / 20), (1, 1, HEIGHT / 20), (2, 3))
        frac = np.concatenate([(rotations @ seed + translations) % 1 for seed in seeds])
        frac[:, 2] = (frac[:, 2] + 0.5) % 1
        if _closest(frac, lattice) > 0.7:
            break
    else:
        raise AltermagError(f"no room for the atoms of a random monolayer of layer group {group}")
    n = len(rotations)
    return Monolayer.from_arrays(lattice, frac, ["Fe"] * n + ["O"] * n, [1.0] * n + [0.0] * n, 2)


def groups_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """S1: each layer group as that of a directly stacked A-type bilayer, against the rule and the list."""
    rng = np.random.default_rng(trial.seed)
    wrong, altermagnets, rows = 0, [], []
    for group in GROUPS:
        ruled = _by_rule(group)
        bilayer = stack(random_monolayer(group, rng), "identity", (0, 0), gap=GAP)
        found = classify(bilayer.atoms)  # by spglib on the built cell
        number = found.layer_group.number if found.layer_group else 0
        expected = "altermagnet" if group in ALTERMAGNETIC else ruled
        wrong += not (ruled == found.kind == expected and number == group)
        if found.kind == "altermagnet":
            altermagnets.append(group)
        rows.append([group, number, found.kind, found.wave, found.n_nodal_lines])
        context.progress(group, len(GROUPS))
    return {
        "metrics": {
            "layer_groups_wrong": wrong,
            "altermagnetic_groups": len(altermagnets),
            "altermagnetic_classes": len({POINT_GROUP_OF.get(group, "other") for group in altermagnets}),
        },
        "rows": rows,
    }


def census_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """S2: random monolayers of all groups, all operators, their special stackings: who is an altermagnet?"""
    rng = np.random.default_rng(trial.seed)
    kinds: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    layers: set[int] = set()
    exceptions = 0
    for group in GROUPS:
        layer = random_monolayer(group, rng)
        layers.add(layer.layer_group.number)
        for bilayer in _stackings(layer, trial.settings["operators"]):
            found = classify(bilayer.atoms)
            kinds[found.kind] += 1
            if found.kind == "altermagnet":
                groups[str(_number(found))] += 1
                exceptions += _number(found) not in ALTERMAGNETIC
        context.progress(group, len(GROUPS))
    return {
        "metrics": {
            "census_exceptions": exceptions,
            "census_altermagnets": kinds["altermagnet"],
            "census_monolayer_groups": len(layers),
            "census_stackings": sum(kinds.values()),
        },
        "kinds": dict(kinds),
        "groups": dict(groups),
    }


def _stackings(layer: Monolayer, operators: list[str]) -> list[Any]:
    """Return the special stackings under every operator that the lattice allows."""
    found = []
    for operator in operators:
        try:
            found += enumerate_stackings(layer, ops=(operator,), gap=GAP)
        except AltermagError as error:
            if "lattice" not in str(error):
                raise
    return found


def _by_rule(group: int) -> str:
    """The class by the rules of section 2.4, if the z-flipping operations of the group flip the spins."""
    rotations, translations = layer_operations(group)
    operations = Operations(rotations, translations, rotations[:, 2, 2])
    return judge(operations, np.array([1.0, -1.0]), 0.02, 2)[0]


def _number(found: Classification) -> int:
    assert found.layer_group is not None
    return found.layer_group.number


def _random_plane(group: int, size: float, rng: np.random.Generator) -> Floats:
    """Return in-plane vectors (2, 2) in Å of the group's system, generic otherwise; area grows with size²."""
    a, b = size * rng.uniform(2.6, 3.4), size * rng.uniform(3.5, 4.4)
    if group <= 7:
        angle = np.radians(rng.uniform(97, 115))
    elif group <= 48:
        angle = np.pi / 2
    else:
        b, angle = a, (np.pi / 2 if group <= 64 else 2 * np.pi / 3)
    return np.array([[a, 0.0], [b * np.cos(angle), b * np.sin(angle)]])


def _closest(frac: Floats, lattice: Floats) -> float:
    """The smallest distance of two atoms in Å, over the images next to the cell."""
    difference = frac[:, None] - frac[None]
    difference[..., :2] -= np.rint(difference[..., :2])
    distance = np.linalg.norm(difference @ lattice, axis=-1)
    return float(distance[~np.eye(len(frac), dtype=bool)].min(initial=np.inf))
