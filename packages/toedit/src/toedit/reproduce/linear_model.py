"""T1: the paper's linear model, simulated, exactly, and as the paper's formula has it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from tenfold import Trial, TrialContext
from toedit import theory

GENERATIONS = 10
SHARE, DECAY = 0.125, 0.941  # of the candidates in the paper's Table 15
LONG = 200
MASK_DRAWS = 20


class LinearConfig(BaseModel):
    """The sizes of T1: samples, dimensions, and how many simulations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(gt=0)
    dimensions: int = Field(gt=0)
    designs: int = Field(gt=1, description="designs X that full replacement is averaged over")
    runs: int = Field(gt=1, description="draws of the noise for one X, with each kind of mask")


def linear_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Simulate and compute; errors are in units of b = σ²d/(T-d-1).

    `replacement` and each of `masks` have `mean` and `se` of the simulation and `exact`, a number a
    generation; the latter have the `paper`'s formula too. `long` are exact errors over many generations.
    """
    sizes = LinearConfig(**trial.settings)
    T, d = sizes.samples, sizes.dimensions
    unit = theory.collapse_error(1, d, T)
    random = np.random.default_rng(trial.seed)
    everything = np.ones((GENERATIONS - 1, T), bool)
    designs = random.standard_normal((sizes.designs, T, d))
    simulated = theory.simulate(designs, everything, runs=1, seed=trial.seed)[:, 0] / unit
    replacement = _estimate(simulated) | {"exact": list(range(1, GENERATIONS + 1))}
    context.progress(1, 3)
    X = designs[0]
    found = {}
    for name, masks in mask_kinds(T, trial.seed).items():
        simulated = theory.simulate(X, masks, runs=sizes.runs, seed=trial.seed) / unit
        found[name] = _estimate(simulated) | {
            "exact": (theory.exact_error(X, masks) / unit).tolist(),
            "paper": (theory.paper_error(X, masks) / unit).tolist(),
        }
    context.progress(2, 3)
    return {"replacement": replacement, "masks": found, "long": long_run(designs[:MASK_DRAWS], unit)}


def mask_kinds(T: int, seed: int) -> dict[str, NDArray[np.bool_]]:
    """The masks of T1, bool [GENERATIONS - 1, T] each."""
    edits = GENERATIONS - 1
    fixed = np.broadcast_to(np.arange(T) < 0.3 * T, (edits, T))
    return {
        "disjoint": theory.disjoint_masks(T, [1 / edits] * edits),
        "fixed": fixed,
        "shrinking": theory.fresh_masks(T, shares(edits), seed),
    }


def shares(edits: int) -> list[float]:
    """The share that each edit draws anew, shrinking as the paper measured."""
    return [SHARE * DECAY**edit for edit in range(edits)]


def long_run(designs: NDArray[np.float64], unit: float) -> dict[str, list[float]]:
    """Exact errors in units of b, means over designs: ten disjoint tenths, and `LONG` generations of edits
    that draw a new mask each time, of a constant and of a shrinking share."""
    T = designs.shape[1]
    constant, shrinking = [SHARE] * (LONG - 1), shares(LONG - 1)
    kinds = {
        "disjoint": [theory.disjoint_masks(T, [0.1] * 10)] * len(designs),
        "constant": [theory.fresh_masks(T, constant, seed) for seed in range(len(designs))],
        "shrinking": [theory.fresh_masks(T, shrinking, seed) for seed in range(len(designs))],
    }
    return {
        name: np.mean(
            [theory.exact_error(X, mask) / unit for X, mask in zip(designs, masks, strict=True)], axis=0
        ).tolist()
        for name, masks in kinds.items()
    }


def linear_metrics(found: dict[str, Any]) -> dict[str, float]:
    """The numbers of the claims T1."""
    shrinking = found["long"]["shrinking"]
    return {
        "replacement_largest_z": _largest_z(found["replacement"]),
        "recursion_largest_z": max(_largest_z(masks) for masks in found["masks"].values()),
        "disjoint_error": max(found["long"]["disjoint"]),
        "shrinking_growth": shrinking[-1] / shrinking[LONG // 2 - 1] - 1,
        "shrinking_limit": shrinking[-1],
        "constant_share_slope": (found["long"]["constant"][-1] - found["long"]["constant"][0]) / (LONG - 1),
    }


def _estimate(simulated: NDArray[np.float64]) -> dict[str, list[float]]:
    se = simulated.std(axis=0, ddof=1) / np.sqrt(len(simulated))
    return {"mean": simulated.mean(axis=0).tolist(), "se": se.tolist()}


def _largest_z(found: dict[str, list[float]]) -> float:
    mean, se, exact = (np.array(found[key]) for key in ("mean", "se", "exact"))
    return float(np.max(np.abs(mean - exact) / se))
