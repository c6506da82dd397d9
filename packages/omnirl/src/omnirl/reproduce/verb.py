"""What the `omnirl` command takes from the workspace: the experiment's run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from tenfold.execution import run_experiment
from tenfold.storage import Tell
from tenfold.tables import claims_table


def reproduce_claims(
    scale: str, assignments: Iterable[str], results: Path, *, resume: bool, tell: Tell
) -> tuple[dict[str, Any], Table]:
    """Run the experiment; return its claims.json and the same as a table."""
    from omnirl.reproduce.experiment import EXPERIMENT

    outcome = run_experiment(
        EXPERIMENT, scale, assignments=assignments, results=results, resume=resume, tell=tell
    )
    return outcome.claims.model_dump(mode="json"), claims_table(outcome.claims)
