from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tenfold import UsageError, find_experiment, run_experiment
from tenfold.comparison import compare_runs

if TYPE_CHECKING:
    from conftest import Paper


@pytest.fixture
def runs(paper: Paper, tmp_path: Path) -> list[Path]:
    """The same paper with growth that settles (rate 2) and growth that is chaotic."""
    experiment = find_experiment(paper.name)
    return [
        run_experiment(
            experiment, "quick", assignments=[f"growth.rate={rate}"], results=tmp_path / str(rate)
        ).folder.path
        for rate in (2.0, 3.9)
    ]


def test_claims_metrics_and_config_side_by_side(runs: list[Path]) -> None:
    comparison = compare_runs(*runs, tell=pytest.fail)
    assert comparison.names == (str(runs[0]), str(runs[1]))
    assert comparison.config == {"growth.rate": (2.0, 3.9)}
    verdicts = {left.id: (left.outcome, right.outcome) for left, right in comparison.claims if left and right}
    assert verdicts["C1"] == ("held", "held")
    assert verdicts["C2"][0] == "held"  # 1 - 1/2 = 0.5 is below 0.6 for every seed
    metrics = {name: (old, new) for name, old, new in comparison.metrics}
    assert list(metrics) == ["slow", "fast", "trials"]
    assert metrics["slow"][0] == metrics["slow"][1]
    settled = metrics["fast"][0]
    assert settled is not None
    assert settled.mean == pytest.approx(0.5, abs=1e-6)


def test_rows_of_one_side_only(runs: list[Path]) -> None:
    file = runs[1] / "claims.json"
    file.write_text(file.read_text().replace('"id": "C3"', '"id": "C9"'))
    comparison = compare_runs(*runs, tell=pytest.fail)
    sides = {(left or right).id: (bool(left), bool(right)) for left, right in comparison.claims}  # type: ignore[union-attr]
    assert sides["C3"] == (True, False)
    assert sides["C9"] == (False, True)


def test_a_folder_that_is_no_finished_run(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere is no finished run: it has no sound claims.json"):
        compare_runs(runs[0], tmp_path / "nowhere", tell=pytest.fail)
    (runs[1] / "metrics.json").write_text("{")
    told: list[str] = []
    with pytest.raises(UsageError, match=r"no sound metrics.json"):
        compare_runs(*runs, tell=told.append)
    assert f"{runs[1] / 'metrics.json'} is damaged" in told[0]
