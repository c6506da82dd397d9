"""Models of bilayer PtBr3 in the stackings of the paper: what sets the sign of a splitting, what light sees.

The models have the symmetry of the structure and nothing else of the material: their numbers are no
prediction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from altermag import optics, tb
from altermag.classification import classify
from altermag.kpath import generic_path, ring, standard_path
from altermag.prototypes import TRIHALIDE_STACKINGS, ptbr3
from altermag.reproduce.claims import EXACT
from altermag.stacking import Bilayer, stack
from tenfold import Trial, TrialContext

Floats = NDArray[np.float64]

DISTANCE = 6.35  # Å, assumed
PARAMETERS = tb.Parameters(
    onsite={"Pt": 0.0, "Br": -1.5},
    bonds={("Pt", "Pt"): (0.25, 3.9, 1.3), ("Pt", "Br"): (0.9, 2.5, 0.9), ("Br", "Br"): (0.5, 3.6, 0.8)},
)
S_ELECTRONS, P_ELECTRONS = 28, 72
"""Up to the largest gap of either model."""
SOC = 0.4  # eV
AXES: dict[str, tuple[float, float, float]] = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1)}

HALL_TABLE: dict[str, tuple[str, str, str]] = {
    "AA'": ("z", "", ""),
    "AB'": ("yz", "x", ""),
    "AC'+": ("xz", "y", "xz"),
    "bridge": ("z", "", "x"),
    "line": ("yz", "x", "x"),
    "AB": ("", "", ""),
}
"""Components of the Hall vector allowed with spins along x, y and z: derived by hand (section 2.8)."""


class ModelConfig(BaseModel):
    """How finely the models are looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zone_points: int = Field(ge=12, description="points along b1 and b2 of the map of the splitting")
    mesh: int = Field(ge=2, description="k points along b1 and b2 of the Kerr spectra")
    photon_energies: int = Field(ge=2)
    broadening: float = Field(gt=0, description="eV")


def named(name: str) -> Bilayer:
    """Return a stacking of PtBr3 by name: those of the paper, a point of a line, or direct AB stacking."""
    mono = ptbr3()
    if name == "AB":
        return stack(mono, "identity", (1 / 3, 2 / 3), distance=DISTANCE)
    shift = (1 / 6, 1 / 3) if name == "line" else TRIHALIDE_STACKINGS[name]
    return stack(mono, "mirror", shift, distance=DISTANCE)


def model_of(bilayer: Bilayer) -> tb.Model:
    """Return the model with one orbital an atom."""
    return tb.from_bilayer(bilayer, params=PARAMETERS)


def spinor_of(bilayer: Bilayer, neel: tuple[float, float, float]) -> tb.Model:
    """Return the model of p orbitals with spin-orbit coupling."""
    return tb.from_bilayer(bilayer, orbitals="p", soc=SOC, neel=neel)


def zone(n: int) -> Floats:
    """Return n by n points of the zone through Γ, (n², 2) in fractions."""
    steps = np.arange(n) / n - 0.5 + (n % 2) / (2 * n)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)


def model_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Everything that needs no spin-orbit coupling: C2 to C5."""
    config = ModelConfig(**trial.settings)
    bilayers = {name: named(name) for name in TRIHALIDE_STACKINGS}
    models = {name: model_of(bilayer) for name, bilayer in bilayers.items()}
    points = zone(config.zone_points)
    delta = {name: model.splitting(points) for name, model in models.items()}
    largest = {name: float(np.abs(values).max()) for name, values in delta.items()}
    dipole = {
        name: tb.layer_dipole(model, (12, 12), S_ELECTRONS)
        for name, model in models.items()
        if name != "bridge"
    }
    standard = standard_path(bilayers["AB'"])
    generic = generic_path(bilayers["AB'"])
    on_standard = np.abs(models["AB'"].splitting(standard.k_points)).max()
    on_generic = np.abs(models["AB'"].splitting(generic.k_points)).max()
    lower, sixth = _harmonics(bilayers["AB'"], models["AB'"])
    ac = max(abs(dipole["AC'+"]), abs(dipole["AC'-"]))
    valence = S_ELECTRONS // 2
    shown = {
        name: int(np.abs(delta[name][:, :valence]).mean(0).argmax()) for name in ("AB'", "AC'+")
    }  # the valence band whose spins part most; its partner's is the same
    pairs = {"AB'": "AB'", "BA'": "AB'", "AC'+": "AC'+", "AC'-": "AC'+"}
    seen = slice(max(shown["AB'"] - 1, 0), shown["AB'"] + 3)
    return {
        "metrics": {
            "ab_generic_splitting_mev": 1e3 * on_generic,
            "ab_standard_over_generic": on_standard / on_generic,
            "ab_lower_harmonics": lower / sixth,
            "ab_sixth_harmonic_mev": 1e3 * sixth,
            "chirality_residual": np.abs(delta["AB'"] + delta["BA'"]).max() / largest["AB'"],
            "polarisation_residual": np.abs(delta["AC'+"] + delta["AC'-"]).max() / largest["AC'+"],
            "ac_gamma_splitting_mev": 1e3 * np.abs(models["AC'+"].splitting([[0, 0]])).max(),
            "dipole_residual": abs(dipole["AC'+"] + dipole["AC'-"]) / ac,
            "dipole_ac": ac,
            "dipole_elsewhere": max(abs(dipole[name]) for name in ("AA'", "AB'", "BA'")) / ac,
        },
        "largest": largest,
        "dipole": dipole,
        "gamma": {name: models[name].splitting([[0, 0]])[0].tolist() for name in ("AC'+", "AC'-")},
        "maps": {name: delta[name][:, shown[first]].tolist() for name, first in pairs.items()},
        "paths": {
            title: {
                "x": path.distances.tolist(),
                "ticks": [[label, position] for label, position in path.ticks],
                "bands": models["AB'"].bands(path.k_points)[:, :, seen].tolist(),
            }
            for title, path in (("standard", standard), ("generic", generic))
        },
        "kind": {name: classify(bilayer).kind for name, bilayer in bilayers.items()},
    }


def _harmonics(bilayer: Bilayer, model: tb.Model) -> tuple[float, float]:
    """The largest |amplitude| in eV, over all bands, of harmonics 0 to 5 on a ring; that of the sixth."""
    points = ring(bilayer, radius=0.2, n=72)
    amplitudes = np.abs(np.fft.rfft(model.splitting(points), axis=0)).max(1) / len(points)
    return float(amplitudes[:6].max()), float(amplitudes[6])


def kerr_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """C6: Kerr spectra of AC'± for both Néel vectors along z, and of the silent stackings."""
    config = ModelConfig(**trial.settings)
    energies = np.linspace(0.3, 4.0, config.photon_energies)
    arms = {
        "AC'+ N+": ("AC'+", 1),
        "AC'- N+": ("AC'-", 1),
        "AC'+ N-": ("AC'+", -1),
        "AA' N+": ("AA'", 1),
        "AB' N+": ("AB'", 1),
    }
    spectra = {}
    for number, (label, (name, sign)) in enumerate(arms.items()):
        model = spinor_of(named(name), (0, 0, sign))
        mesh = (config.mesh, config.mesh)
        found = optics.kubo(model, energies, mesh, config.broadening, n_electrons=P_ELECTRONS)
        angle = optics.kerr((found.xx + found.yy) / 2, found.antisymmetric)
        spectra[label] = {"hall": found.antisymmetric, "kerr": np.asarray(angle)}
        context.progress(number + 1, len(arms))
    plus = spectra["AC'+ N+"]
    turned = ("AC'- N+", "AC'+ N-")
    size = float(np.abs(plus["hall"]).max())
    # Angle and ellipticity are judged apart: each by its own size.
    parts = [
        (part(plus["kerr"]), part(spectra[label]["kerr"])) for label in turned for part in (np.real, np.imag)
    ]
    silent = max(float(np.abs(spectra[label]["hall"]).max()) for label in ("AA' N+", "AB' N+"))
    return {
        "metrics": {
            "kerr_residual": max(float(np.abs(a + b).max() / np.abs(a).max()) for a, b in parts),
            "hall_residual": max(
                float(np.abs(plus["hall"] + spectra[label]["hall"]).max()) / size for label in turned
            ),
            "hall_ac": size,
            "hall_silent": silent / size,
        },
        "energies": energies.tolist(),
        "spectra": {
            label: {
                "hall": [found["hall"].real.tolist(), found["hall"].imag.tolist()],
                "kerr": [found["kerr"].real.tolist(), found["kerr"].imag.tolist()],
            }
            for label, found in spectra.items()
        },
    }


def hall_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """C7: the table of allowed components, by symmetry; and where the model has a σ_xy."""
    found: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(HALL_TABLE):
        bilayer = named(name)
        kind = classify(bilayer)
        for axis, neel in AXES.items():
            sigma = optics.kubo(spinor_of(bilayer, neel), [1.0, 2.0], (4, 4), 0.1, n_electrons=P_ELECTRONS)
            found[f"{name} {axis}"] = {
                "allowed": "".join(sorted(kind.hall_vector(neel))),
                "hand": HALL_TABLE[name]["xyz".index(axis)],
                "model": float(np.abs(sigma.antisymmetric).max()),
            }
        context.progress(number + 1, len(HALL_TABLE))
    largest = max(entry["model"] for entry in found.values())
    seen = {label: bool(entry["model"] > EXACT * largest) for label, entry in found.items()}
    return {
        "metrics": {
            "hall_table_mismatches": sum(entry["allowed"] != entry["hand"] for entry in found.values()),
            "hall_model_disagreements": sum(
                seen[label] != ("z" in entry["hand"]) for label, entry in found.items()
            ),
        },
        "table": found,
    }
