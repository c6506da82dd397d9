"""Bilayers computed with GPAW: NiCl2 in a minute, PtBr3 in an hour (section 6.2).

A calculation that fails, or leaves the order it was asked for, is told as that: what would come of it is not
tested.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from altermag.dft import gpaw
from altermag.dft.results import DFTResult, check_points, check_splitting, in_plane_rotations
from altermag.errors import AltermagError
from altermag.monolayer import Monolayer
from altermag.prototypes import TRIHALIDE_STACKINGS, dihalide, ptbr3, trihalide
from altermag.stacking import Bilayer, stack
from tenfold import Trial, TrialContext

NICKEL = {"a": 3.48, "height": 1.36, "distance": 5.75, "vacuum": 8.53, "moment": 2.0}
"""Å and μB: the type of the measured structure."""
NICKEL_SHIFTS = {"NiCl2 (1/3,0)": (1 / 3, 0.0), "NiCl2 (0,0)": (0.0, 0.0)}
NICKEL_WINDOW, PLATINUM_WINDOW = 4.0, 3.0
"""eV on either side of the Fermi level: the bands that count."""
VACUUM = 15.0
"""Å around PtBr3."""


class NickelConfig(BaseModel):
    """The runs of NiCl2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stackings: tuple[str, ...] = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict, description="fields of GPAWSettings")


class PlatinumConfig(BaseModel):
    """The runs of PtBr3."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lattice_constants: tuple[float, ...] = Field(
        min_length=1, description="Å; one is taken, of more the best"
    )
    distance: float = Field(gt=0, description="Å between the layers' mid-planes, assumed")
    antiparallel: tuple[str, ...] = Field(min_length=1)
    parallel: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict, description="fields of GPAWSettings")


def nickel_bilayer(name: str) -> Bilayer:
    """Return reversed NiCl2 at a named shift."""
    layer = dihalide("Ni", "Cl", a=NICKEL["a"], height=NICKEL["height"])
    strong = Monolayer.from_arrays(
        layer.lattice, layer.frac_coords, layer.species, NICKEL["moment"] * layer.magmoms, 2
    )
    return stack(strong, "mirror", NICKEL_SHIFTS[name], distance=NICKEL["distance"], vacuum=NICKEL["vacuum"])


def platinum_bilayer(name: str, layer: Monolayer, distance: float, order: str) -> Bilayer:
    """Return a named stacking of a PtBr3 monolayer."""
    return stack(layer, "mirror", TRIHALIDE_STACKINGS[name], distance=distance, order=order, vacuum=VACUUM)


def nickel_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Compute one stacking of NiCl2."""
    return _told(nickel_bilayer(trial.arm), trial.settings["settings"], context, None)


def relax_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Relax the PtBr3 monolayer at one lattice constant: energy, and the free coordinates of bromine."""
    length, settings = trial.settings["length"], _settings(trial.settings["settings"])
    try:
        atoms = gpaw.relax_at(_known_layer(), length, "lcao-dzp", context.checkpoint_dir, **settings)
    except AltermagError as error:
        return {"problem": str(error)}
    heights = atoms.positions[:, 2] - atoms.positions[:2, 2].mean()
    return {
        "energy": float(atoms.get_potential_energy()),
        "a": length,
        "x": float(atoms.get_scaled_positions(wrap=False)[2, 0]),
        "height": float(np.abs(heights[2:]).mean()),
    }


def platinum_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Compute one stacking of PtBr3 in one magnetic order, at the points that test the symmetry of AB'."""
    layer = trihalide("Pt", "Br", **trial.settings["layer"])
    distance = trial.settings["distance"]
    name, order = trial.arm.rsplit(" ", 1)
    points = check_points(platinum_bilayer("AB'", layer, distance, "afm"))
    bilayer = platinum_bilayer(name, layer, distance, order)
    return _told(bilayer, trial.settings["settings"], context, points)


def _told(bilayer: Bilayer, settings: dict[str, Any], context: TrialContext, points: Any) -> dict[str, Any]:
    try:
        found = gpaw.run(bilayer, "lcao-dzp", context.checkpoint_dir, k_points=points, **_settings(settings))
    except AltermagError as error:
        return {"problem": str(error)}
    return {"result": found.as_dict()}


def nickel_metrics(found: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the numbers of the claims about NiCl2 from the results by stacking."""
    metrics = {}
    results = _results(found)
    for name, result in results.items():
        flips = in_plane_rotations(nickel_bilayer(name))[1]
        check = check_splitting(result, flips, NICKEL_WINDOW)
        if name == "NiCl2 (0,0)":
            metrics["nicl2_control_mev"] = max(check.forced_zeros, check.generic)
        else:
            metrics |= {"nicl2_splitting_mev": check.generic, "nicl2_forced_zeros_mev": check.forced_zeros}
    return metrics


def platinum_metrics(found: dict[str, dict[str, Any]], layer: Monolayer, distance: float) -> dict[str, Any]:
    """Return the numbers of the claims about PtBr3 from the results by "stacking order"."""
    results = _results(found)
    metrics: dict[str, Any] = {}
    if "AB' afm" in results:
        ab = results["AB' afm"]
        flips = in_plane_rotations(platinum_bilayer("AB'", layer, distance, "afm"))[1]
        check = check_splitting(ab, flips, PLATINUM_WINDOW)
        metrics |= {
            "ab_splitting_mev": check.generic,
            "ab_forced_zeros_mev": check.forced_zeros,
            "ab_reflection_mev": check.reflection,
        }
        if "BA' afm" in results:
            metrics["chirality_mev"] = _sum_mev(ab, results["BA' afm"])
        if "AB' fm" in results:
            metrics["ab_exchange_mev"] = 1e3 * (results["AB' fm"].energy - ab.energy)
    if "AA' afm" in results:
        metrics["aa_splitting_mev"] = 1e3 * float(results["AA' afm"].largest_splitting(PLATINUM_WINDOW).max())
    if {"AC'+ afm", "AC'- afm"} <= results.keys():
        pair = [results["AC'+ afm"], results["AC'- afm"]]
        up, down = (result.polarisation for result in pair)
        metrics["ac_gamma_mev"] = [_gamma_mev(result) for result in pair]
        metrics["polarisation_asymmetry"] = abs(up + down) / max(abs(up), abs(down))
        metrics["polarisation_ac"] = [up, down]
    if {"AB' afm", "AA' afm"} <= results.keys():
        metrics["polarisation_elsewhere"] = [
            abs(results[name].polarisation) for name in ("AB' afm", "AA' afm")
        ]
    return metrics


def problems(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return what went wrong, by calculation."""
    return {name: entry["problem"] for name, entry in found.items() if "problem" in entry}


def _results(found: dict[str, dict[str, Any]]) -> dict[str, DFTResult]:
    return {name: DFTResult.from_dict(entry["result"]) for name, entry in found.items() if "result" in entry}


def _sum_mev(one: DFTResult, other: DFTResult) -> float:
    """The largest |Δ_n(k) + Δ'_n(k)| in meV of two results at the same points."""
    both = one.within(PLATINUM_WINDOW) & other.within(PLATINUM_WINDOW)
    return 1e3 * float(np.where(both, np.abs(one.splitting() + other.splitting()), 0.0).max())


def _gamma_mev(result: DFTResult) -> float:
    """The largest |Δ(Γ)| in meV of the valence bands."""
    gamma = int(np.flatnonzero((np.abs(result.k_points) < 1e-9).all(1))[0])
    valence = result.eigenvalues.mean(0)[gamma] < result.fermi_level
    near = result.within(PLATINUM_WINDOW)[gamma]
    return 1e3 * float(np.abs(result.splitting()[gamma][valence & near]).max())


def _known_layer() -> Monolayer:
    """The monolayer where relaxation starts: relaxed before, at 6.80 Å."""
    return ptbr3()


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of GPAWSettings, of which JSON made lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
