"""What is published is what the runs say, and nothing stands in a README that no run measured."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import publish_results
from tenfold import Verdict
from tenfold.results import ClaimResult, ClaimsFile, Environment, EstimateRecord, GitState, RunFolder
from tenfold.storage import write_json

MARKED = "before\n<!-- {0}:begin -->\nold\n<!-- {0}:end -->\nafter\n"

PYPROJECT = """
[project]
name = "{0}"
description = "Descent of {0}."
[project.entry-points."tenfold.experiments"]
{0} = "{0}:EXPERIMENT"
"""


def claim(
    id: str, verdict: Verdict, samples: list[float], reason: str = "", **changes: object
) -> ClaimResult:
    fields = {
        "id": id,
        "statement": f"Statement of {id} with a | in it.",
        "source": "section 1",
        "metric": "m",
        "condition": "m ≤ 1",
        "paper_value": 0.95,
        "paper_text": "",
        "unit": "",
        "note": "",
        "ours": EstimateRecord(mean=samples[0], low=None, high=None, samples=samples) if samples else None,
        "compared_with": {},
        "verdict": verdict,
        "reason": reason,
    }
    return ClaimResult.model_validate(fields | changes)


def environment(dirty: bool) -> Environment:
    return Environment(
        started=datetime(2026, 1, 1, tzinfo=UTC),
        command=["tenfold"],
        config_sha256="",
        python="3.11",
        platform="",
        packages={},
        cpu="",
        physical_cores=None,
        logical_cores=2,
        memory_bytes=0,
        gpus=[],
        git=GitState(commit="0" * 40, dirty=dirty),
        seeds=[0],
    )


def write_run(results: Path, scale: str, *claims: ClaimResult, dirty: bool = False) -> None:
    run = RunFolder(results / "ball" / scale)
    run.figures.mkdir(parents=True)
    (run.figures / "error.svg").write_text(f"<svg>{scale}</svg>")
    for name in ("metrics.json", "config.toml", "log.txt"):
        (run.path / name).write_text(f"{name} of {scale}")
    write_json(run.environment_file, environment(dirty))
    file = ClaimsFile(
        experiment="ball",
        title="What the Ball Knows",
        paper="Polyak 1964",
        url="https://doi.org/10.1137/16M1080173",
        summary="",
        scale=scale,
        finished=datetime(2026, 1, 2, tzinfo=UTC),
        claims=list(claims),
    )
    write_json(run.claims_file, file)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    for name in ("ball", "other"):
        (root / "packages" / name).mkdir(parents=True)
        (root / "packages" / name / "pyproject.toml").write_text(PYPROJECT.format(name))
    (root / "packages" / "ball" / "README.md").write_text(MARKED.format("claims"))
    (root / "README.md").write_text(MARKED.format("papers"))
    return root


def test_tables_hold_what_the_runs_say(tmp_path: Path, workspace: Path) -> None:
    quick = [
        claim("C1", Verdict.HELD, [0.9]),
        claim("C2", Verdict.NOT_TESTED, [], "not tested at this scale"),
    ]
    laptop = [
        claim("C2", Verdict.DID_NOT_HOLD, [1.5], paper_text="about 1"),
        claim("C3", Verdict.HELD, [0.5]),
    ]
    write_run(tmp_path / "results", "quick", *quick)
    write_run(tmp_path / "results", "laptop", *laptop)
    assert publish_results.publish("ball", tmp_path / "results", workspace) == ["quick", "laptop"]

    readme = (workspace / "packages" / "ball" / "README.md").read_text()
    assert readme.startswith(
        "before\n<!-- claims:begin -->\n| claim | the paper | quick | laptop |\n|---|---|---|---|\n"
    )
    assert readme.endswith("|\n<!-- claims:end -->\nafter\n")
    rows = [row for row in readme.splitlines() if row.startswith("| **")]
    assert rows == [
        "| **C1** Statement of C1 with a &#124; in it. | 0.95 | 0.9<br>**held** |  |",
        "| **C2** Statement of C2 with a &#124; in it. | about 1 | not tested at this scale "
        "| 1.5<br>**did not hold** |",
        "| **C3** Statement of C3 with a &#124; in it. | 0.95 |  | 0.5<br>**held** |",
    ]
    assert (
        "| [`ball`](packages/ball/README.md) | Descent of ball. "
        "| quick: 1 held, 1 not tested<br>laptop: 1 did not hold, 1 held |\n"
        "| [`other`](packages/other/README.md) | Descent of other. | no run is published yet |\n"
    ) in (workspace / "README.md").read_text()


def test_a_new_run_takes_the_place_of_the_old_one_whole(tmp_path: Path, workspace: Path) -> None:
    write_run(tmp_path / "first", "quick", claim("C1", Verdict.HELD, [0.9]))
    (tmp_path / "first" / "ball" / "quick" / "figures" / "gone.svg").write_text("<svg/>")
    publish_results.publish("ball", tmp_path / "first", workspace)
    write_run(tmp_path / "second", "quick", claim("C1", Verdict.DID_NOT_HOLD, [1.1]))
    publish_results.publish("ball", tmp_path / "second", workspace)
    folder = workspace / "docs" / "results" / "ball" / "quick"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "claims.json",
        "config.toml",
        "environment.json",
        "figures/error.svg",
        "metrics.json",
    ]
    assert "1.1<br>**did not hold**" in (workspace / "packages" / "ball" / "README.md").read_text()


def test_without_a_finished_run_nothing_changes(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "results" / "ball" / "quick").mkdir(parents=True)
    with pytest.raises(SystemExit, match="there is no finished run of ball"):
        publish_results.publish("ball", tmp_path / "results", workspace)
    assert (workspace / "README.md").read_text() == MARKED.format("papers")


def test_a_run_of_changed_source_is_published_only_when_told(tmp_path: Path, workspace: Path) -> None:
    write_run(tmp_path / "results", "quick", claim("C1", Verdict.HELD, [0.9]))
    write_run(tmp_path / "results", "laptop", claim("C1", Verdict.HELD, [0.8]), dirty=True)
    with pytest.raises(SystemExit, match="ball at laptop was run with uncommitted changes"):
        publish_results.publish("ball", tmp_path / "results", workspace)
    assert not (workspace / "docs").exists()
    published = publish_results.publish("ball", tmp_path / "results", workspace, dirty=True)
    assert published == ["quick", "laptop"]


def test_a_damaged_run_is_named_and_not_published(tmp_path: Path, workspace: Path) -> None:
    write_run(tmp_path / "results", "quick", claim("C1", Verdict.HELD, [0.9]))
    (tmp_path / "results" / "ball" / "quick" / "claims.json").write_text('{"experiment": ')
    with pytest.raises(SystemExit, match=r"claims\.json is damaged"):
        publish_results.publish("ball", tmp_path / "results", workspace)
    assert not (workspace / "docs").exists()


def test_a_readme_without_the_markers_is_named(tmp_path: Path, workspace: Path) -> None:
    write_run(tmp_path / "results", "quick", claim("C1", Verdict.HELD, [0.9]))
    (workspace / "packages" / "ball" / "README.md").write_text("# ball\n")
    with pytest.raises(SystemExit, match=r"README\.md has no place for a table: <!-- claims:begin -->"):
        publish_results.publish("ball", tmp_path / "results", workspace)
