"""The table of reversed PtBr3 three ways, and the map of all its shifts: C1.

The rows are derived by hand (section 2.1). The fast kernel decides from the monolayer's group alone,
`classify` lets spglib look at the built cell, and a model's bands know nothing of either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from altermag.classification import classify
from altermag.mapping import stacking_map
from altermag.prototypes import ptbr3
from altermag.reproduce.claims import EXACT
from altermag.reproduce.models import DISTANCE, model_of
from altermag.stacking import Bilayer, stack
from tenfold import Trial, TrialContext


class Row(NamedTuple):
    """What is true of a stacking; `lines` counts nodal lines through Γ, `swaps` layer-swapping operations."""

    name: str
    op: str
    shift: tuple[float, float]
    kind: str
    group: int
    swaps: int
    wave: str | None = None
    lines: int = 0
    reason: str | None = None
    gamma: bool = False
    """Whether the splitting at Γ is not zero."""


ALTER, ANTI, FERRI = "altermagnet", "antiferromagnet", "compensated-ferrimagnet"
ROWS = (
    Row("AA'", "mirror", (0, 0), ANTI, 79, 6, reason="Mz"),
    Row("AB'", "mirror", (1 / 3, 2 / 3), ALTER, 68, 3, "i", 6),
    Row("BA'", "mirror", (2 / 3, 1 / 3), ALTER, 68, 3, "i", 6),
    Row("AC'+", "mirror", (1 / 3, 0), FERRI, 13, 0, gamma=True),
    Row("AC'-", "mirror", (-1 / 3, 0), FERRI, 13, 0, gamma=True),
    Row("AC'+ turned", "mirror", (0, 1 / 3), FERRI, 13, 0, gamma=True),
    Row("mirror line", "mirror", (0.2, 0), FERRI, 13, 0, gamma=True),
    Row("bridge", "mirror", (1 / 2, 0), ANTI, 36, 2, reason="Mz"),
    Row("line", "mirror", (1 / 6, 1 / 3), ALTER, 10, 1, "d", 2),
    Row("generic", "mirror", (0.13, 0.29), FERRI, 1, 0, gamma=True),
    Row("AA", "identity", (0, 0), ANTI, 71, 6, reason="P"),
    Row("AB", "identity", (1 / 3, 2 / 3), ANTI, 66, 3, reason="P"),
    Row("(1/3,0)", "identity", (1 / 3, 0), ANTI, 18, 2, reason="P"),
    Row("any", "identity", (0.13, 0.29), ANTI, 2, 1, reason="P"),
)


class TableConfig(BaseModel):
    """The maps of all shifts: how fine, and where the model is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    map_points: int = Field(ge=12, description="shifts along a1 and a2 of the map of classes")
    witness_points: int = Field(
        ge=6, description="shifts along a1 and a2 of the map of the model's splitting"
    )
    k_points: int = Field(ge=2, description="generic k points at which the model is asked")


def table_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Compare every row with what the three ways find."""
    points = _generic_points(12)
    found, mismatches = [], []
    for number, row in enumerate(ROWS):
        bilayer = stack(ptbr3(), row.op, row.shift, distance=DISTANCE)
        ways = {"kernel": _by_kernel(row), "spglib": _by_spglib(bilayer), "model": _by_model(bilayer, points)}
        for way, answers in ways.items():
            for entry, answer in answers.items():
                expected = _expected(row)[entry]
                if answer != expected:
                    mismatches.append(f"{row.name}, {way}: {entry} {answer}, expected {expected}")
        found.append({"name": row.name, **{way: _shown(answers) for way, answers in ways.items()}})
        context.progress(number + 1, len(ROWS))
    return {
        "metrics": {"table_mismatches": len(mismatches), "table_rows": len(ROWS)},
        "rows": found,
        "mismatches": mismatches,
    }


def map_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Classify all shifts by the kernel; on a coarser grid ask the model where its spins are degenerate."""
    config = TableConfig(**trial.settings)
    fine = stacking_map(ptbr3(), "mirror", config.map_points)
    coarse = stacking_map(ptbr3(), "mirror", config.witness_points)
    points = _generic_points(config.k_points)
    largest = np.empty(len(coarse.shifts))
    for number, shift in enumerate(coarse.shifts):
        bilayer = stack(ptbr3(), "mirror", shift, distance=DISTANCE)
        largest[number] = np.abs(model_of(bilayer).splitting(points)).max()
        context.progress(number + 1, len(largest))
    degenerate = largest <= EXACT * largest.max()
    return {
        "metrics": {
            "witness_disagreements": int((degenerate != (coarse.kind == ANTI)).sum()),
            "degenerate_shifts": int(degenerate.sum()),
        },
        "shifts": np.asarray(fine.shifts).tolist(),
        "kinds": [str(kind) for kind in fine.kind],
        "coarse": np.asarray(coarse.shifts).tolist(),
        "largest": largest.tolist(),
    }


def _expected(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "group": row.group,
        "swaps": row.swaps,
        "wave": row.wave,
        "lines": row.lines,
        "reason": row.reason,
        "degenerate": row.kind == ANTI,
        "gamma": row.gamma,
    }


def _by_kernel(row: Row) -> dict[str, Any]:
    found = stacking_map(ptbr3(), row.op, np.array([row.shift]))
    return {
        "kind": str(found.kind[0]),
        "wave": str(found.wave[0]) or None,
        "lines": int(found.n_nodal_lines[0]),
    }


def _by_spglib(bilayer: Bilayer) -> dict[str, Any]:
    found = classify(bilayer.atoms)  # of a bilayer it would take the kernel's operations
    answers = {
        "kind": found.kind,
        "group": found.layer_group.number if found.layer_group else None,
        "swaps": len(found.flip_ops),
        "wave": found.wave,
        "lines": found.n_nodal_lines,
    }
    return answers | ({"reason": found.reason} if found.kind == ANTI else {})


def _by_model(bilayer: Bilayer, points: Any) -> dict[str, Any]:
    """Whether the model's spins are degenerate everywhere, and at Γ, relative to its bandwidth."""
    model = model_of(bilayer)
    width = float(np.ptp(model.bands(points)))
    zero = EXACT * width
    return {
        "degenerate": bool(np.abs(model.splitting(points)).max() <= zero),
        "gamma": bool(np.abs(model.splitting([[0, 0]])).max() > zero),
    }


def _generic_points(count: int) -> Any:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (count, 2))


def _shown(answers: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in answers.items() if value is not None)
