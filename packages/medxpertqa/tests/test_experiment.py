from __future__ import annotations

from pathlib import Path

import pytest

from medxpertqa.reproduce.experiment import EXPERIMENT
from tenfold import Verdict, run_experiment


@pytest.fixture
def light_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial's process imports the main module again; that of pytest is slow and no trial needs it."""
    import sys

    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


@pytest.mark.usefixtures("light_processes")
def test_the_quick_run_judges_every_claim(tmp_path: Path) -> None:
    outcome = run_experiment(EXPERIMENT, "quick", results=tmp_path, tell=lambda message: None)
    assert [claim.verdict for claim in outcome.claims.claims] == [Verdict.HELD] * 2
    assert (outcome.folder.figures / "descent.svg").exists()
