"""The experiment: a small run ends with judged claims and figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tenfold import Run, Trial, TrialContext, Verdict, run_experiment
from tenfold.pool import TrialFunction
from toedit.reproduce.experiment import EXPERIMENT


def run_here(
    run: Run, function: TrialFunction, trials: Iterable[Trial], jobs: int | None = None, threads: int = 1
) -> dict[Trial, dict[str, Any]]:
    """`Run.map` in this process: other processes would do little but import torch and transformers."""
    results = {}
    for trial in trials:
        context = TrialContext(trial, run.directory, lambda done, total: None)
        results[trial] = context.finish(function(trial, context))
    run.trials.update(results)
    return results


def test_a_small_run_judges_the_claims_and_draws_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setattr(Run, "has_data", lambda run, name: False)
    changes = ["linear.designs=500", "linear.runs=500"]
    outcome = run_experiment(EXPERIMENT, "quick", assignments=changes, results=tmp_path / "results")
    found = {claim.id: claim for claim in outcome.claims.claims}
    assert set(found) == {claim.id for claim in EXPERIMENT.claims}
    assert found["T1"].verdict == found["T1-bounded"].verdict == Verdict.HELD
    assert found["T1-constant"].verdict == Verdict.DID_NOT_HOLD
    assert {file.stem for file in outcome.folder.figures.glob("*.svg")} == {"theory"}
