"""What the `altermag` command takes from the workspace: the experiment's run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from altermag.reproduce.claims import EXACT_CLAIMS
from tenfold import Verdict
from tenfold.execution import run_experiment
from tenfold.storage import Tell
from tenfold.tables import claims_table


def reproduce_claims(
    scale: str, assignments: Iterable[str], results: Path, *, resume: bool, tell: Tell
) -> tuple[dict[str, Any], Table, list[str]]:
    """Run the experiment; return its claims.json, the same as a table, and exact claims that did not hold."""
    from altermag.reproduce.experiment import EXPERIMENT

    outcome = run_experiment(
        EXPERIMENT, scale, assignments=assignments, results=results, resume=resume, tell=tell
    )
    broken = [
        claim.id
        for claim in outcome.claims.claims
        if claim.id in EXACT_CLAIMS and claim.verdict == Verdict.DID_NOT_HOLD
    ]
    return outcome.claims.model_dump(mode="json"), claims_table(outcome.claims), broken
