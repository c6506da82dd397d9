from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tenfold import Outcome, TenfoldError, UsageError, Verdict, find_experiment, run_experiment
from tenfold.data import DataUnavailableError
from tenfold.results import RunFolder

if TYPE_CHECKING:
    from conftest import Paper

Runner = Callable[..., Outcome]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def start(paper: Paper, results: Path) -> Runner:
    """Run the small paper at scale quick."""

    def start(*assignments: str, resume: bool = False, told: list[str] | None = None) -> Outcome:
        tell = pytest.fail if told is None else told.append
        return run_experiment(
            find_experiment(paper.name),
            "quick",
            assignments=assignments,
            results=results,
            resume=resume,
            tell=tell,
        )

    return start


def test_a_run_leaves_its_files(start: Runner, results: Path) -> None:
    outcome = start("seeds=[3, 5]", "growth.rate=3.8")
    folder = outcome.folder
    assert folder.path == results / "growth" / "quick"
    assert {path.name for path in folder.path.iterdir()} == {
        "claims.json",
        "config.toml",
        "environment.json",
        "log.txt",
        "metrics.json",
        "metrics.jsonl",
    }
    config = tomllib.loads(folder.config_file.read_text())
    assert config["seeds"] == [3, 5]
    assert config["growth"] == {"rate": 3.8}
    assert config["pause"] == 0.0  # as resolved: with the defaults
    environment = folder.read_environment(pytest.fail)
    assert environment is not None
    assert environment.seeds == [3, 5]
    metrics = json.loads(folder.metrics_file.read_text())["metrics"]
    x = 0.13
    for _ in range(12):
        x = 3.8 * x * (1 - x)
    assert metrics["fast"]["samples"][0] == x
    assert metrics["trials"] == {"mean": 4.0, "low": None, "high": None, "samples": [4.0]}
    log = folder.log_file.read_text()
    assert "started growth at scale quick" in log
    assert "finished arm 'fast' seed 5" in log


def test_the_claims_are_judged_and_kept_with_their_numbers(start: Runner) -> None:
    outcome = start()
    claims = {claim.id: claim for claim in outcome.claims.claims}
    assert claims["C1"].verdict == Verdict.HELD  # 1 - 1/2.5 = 0.6
    assert claims["C3"].verdict == Verdict.DID_NOT_HOLD  # six trials, not a thousand
    assert claims["C3"].condition == "trials ≥ 1,000 (the paper)"
    assert claims["C4"].outcome == "not tested at this scale"
    assert list(claims["C2"].compared_with) == ["slow"]
    assert claims["C1"].ours is not None
    assert claims["C1"].ours.mean == pytest.approx(0.6, abs=1e-4)
    assert outcome.folder.read_claims(pytest.fail) == outcome.claims
    assert outcome.claims.paper == "May, Nature 261, 1976"


def test_without_resume_the_earlier_run_is_moved_aside(start: Runner, results: Path) -> None:
    start("steps=3")
    told: list[str] = []
    start("steps=4", told=told)
    start("steps=5", told=told)
    assert len(told) == 2
    assert f"moved to {results / 'growth' / 'quick.old-1'}" in told[0]
    steps = [
        tomllib.loads((results / "growth" / name / "config.toml").read_text())["steps"]
        for name in ("quick.old-1", "quick.old-2", "quick")
    ]
    assert steps == [3, 4, 5]


def test_resume_of_nothing_starts_and_of_a_finished_run_repeats_no_trial(start: Runner) -> None:
    first = start(resume=True)
    records = first.folder.records_file.read_bytes()
    again = start(resume=True)
    assert again.folder.records_file.read_bytes() == records
    assert again.claims.claims == first.claims.claims
    environment = again.folder.read_environment(pytest.fail)
    assert environment is not None
    assert environment.seeds == [0, 1, 2]
    assert environment.changed_on_resume == []


def test_resume_with_another_config_names_the_keys(start: Runner) -> None:
    first = start("steps=3")
    before = {path: path.read_bytes() for path in first.folder.path.iterdir()}
    with pytest.raises(UsageError) as error:
        start("steps=4", "growth.rate=3.5", resume=True)
    assert "steps was 3, is now 4" in str(error.value)
    assert "growth.rate was 3.9, is now 3.5" in str(error.value)
    assert "seeds" not in str(error.value)
    assert {path: path.read_bytes() for path in first.folder.path.iterdir()} == before


def test_a_mistake_does_not_move_the_earlier_run(start: Runner, results: Path) -> None:
    folder = start().folder
    experiment = find_experiment("growth")
    with pytest.raises(UsageError, match="steps = 0"):
        start("steps=0")
    with pytest.raises(UsageError, match="--jobs 0: it must be at least 1"):
        run_experiment(experiment, "quick", results=results, jobs=0, tell=pytest.fail)
    assert [path.name for path in (results / "growth").iterdir() if path.is_dir()] == ["quick"]
    assert folder.read_claims(pytest.fail) is not None


def test_a_failed_run_goes_on_where_it_stopped_once_it_is_repaired(
    install: Callable[..., Paper], source: str, results: Path
) -> None:
    broken = source.replace(
        "    return metrics |",
        "    if os.environ.get('BROKEN'):\n        raise NameError('oops')\n    return metrics |",
    )
    install({"__init__.py": broken})
    folder = RunFolder(results / "growth" / "quick")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROKEN", "1")
        with pytest.raises(TenfoldError, match="experiment growth failed: NameError: oops") as error:
            run_experiment(find_experiment("growth"), "quick", results=results, tell=pytest.fail)
    assert str(folder.log_file) in str(error.value)
    assert "Traceback" in folder.log_file.read_text()
    assert folder.read_claims(pytest.fail) is None
    records = folder.records_file.read_bytes()
    run_experiment(find_experiment("growth"), "quick", results=results, resume=True, tell=pytest.fail)
    assert folder.read_claims(pytest.fail) is not None
    assert folder.records_file.read_bytes() == records


def test_a_change_of_the_environment_is_told_on_resume(start: Runner) -> None:
    folder = start().folder
    stored = json.loads(folder.environment_file.read_text())
    stored["packages"]["pydantic"] = "1.0"
    folder.environment_file.write_text(json.dumps(stored))
    told: list[str] = []
    start(resume=True, told=told)
    assert len(told) == 1
    assert "resumed in another environment (pydantic: 1.0 -> " in told[0]
    environment = folder.read_environment(pytest.fail)
    assert environment is not None
    assert environment.changed_on_resume[0].startswith("pydantic: 1.0 -> ")


DAMAGED_JSON = (b'{"claims": [{"id":', b"\x00\xff\xfe", b'{"valid": "JSON", "of": ["another", "schema"]}')


@pytest.mark.parametrize("name", ["claims.json", "metrics.json", "environment.json"])
def test_a_damaged_file_is_named_moved_aside_and_made_again(start: Runner, name: str) -> None:
    first = start()
    folder, records = first.folder, first.folder.records_file.read_bytes()
    for number, content in enumerate(DAMAGED_JSON, start=1):
        (folder.path / name).write_bytes(content)
        told: list[str] = []
        again = start(resume=True, told=told)
        assert len(told) == 1
        assert f"{folder.path / name} is damaged" in told[0]
        assert f"moved to {name}.damaged-{number}" in told[0]
        assert (folder.path / f"{name}.damaged-{number}").read_bytes() == content
        assert again.claims.claims == first.claims.claims
        assert folder.records_file.read_bytes() == records  # no trial ran again
        assert folder.read_metrics(pytest.fail) is not None
        assert folder.read_environment(pytest.fail) is not None


def test_a_damaged_config_is_replaced_where_its_sum_is_known(start: Runner) -> None:
    folder = start().folder
    sound = folder.config_file.read_bytes()
    for number, content in enumerate((b"steps = [", b"\xff\xfe", b"steps = 12\n", b""), start=1):
        folder.config_file.write_bytes(content)
        told: list[str] = []
        start(resume=True, told=told)
        assert len(told) == 1
        assert f"{folder.config_file} is damaged" in told[0]
        assert folder.config_file.read_bytes() == sound
        assert (folder.path / f"config.toml.damaged-{number}").read_bytes() == content


def test_a_damaged_config_is_not_replaced_by_another(start: Runner) -> None:
    folder = start().folder
    folder.config_file.write_bytes(b"steps = [")
    with pytest.raises(UsageError, match=r"config.toml is lost.*run again without --resume"):
        start("steps=4", resume=True, told=[])


def test_damaged_records_run_again_and_the_numbers_are_the_same(start: Runner) -> None:
    folder = start().folder
    metrics = folder.metrics_file.read_bytes()
    lines = folder.records_file.read_bytes().splitlines(keepends=True)
    folder.records_file.write_bytes(b"".join([*lines[:30], b"{}\n", *lines[30:]]))
    told: list[str] = []
    start(resume=True, told=told)
    assert len(told) == 1
    assert f"{folder.records_file} is damaged at line 31" in told[0]
    assert folder.metrics_file.read_bytes() == metrics
    assert folder.records_file.read_bytes().startswith(b"".join(lines[:30]))


FIGURES = """
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Drawn:
    path: Path
    caption: str

def figures(config, metrics, records, folder):
    (folder / "curve.svg").write_text(f"<svg>{len(records.results())} {metrics['trials'].mean}</svg>")
    return [Drawn(RETURNED, "The curve.")]
"""


def with_figures(source: str, returned: str) -> str:
    head, middle, end = source.partition("EXPERIMENT = ")
    drawn = FIGURES.replace("RETURNED", returned)
    return head + drawn + middle + end.replace("claims=CLAIMS,", "claims=CLAIMS,\n    figures=figures,")


@pytest.mark.parametrize("returned", ['folder / "curve.svg"', '"curve.svg"'])
def test_figures_replace_the_old_ones_together(
    install: Callable[..., Paper], source: str, results: Path, returned: str
) -> None:
    install({"__init__.py": with_figures(source, returned)})
    experiment = find_experiment("growth")
    folder = run_experiment(experiment, "quick", results=results, tell=pytest.fail).folder
    (folder.figures / "stale.svg").write_text("")
    run_experiment(experiment, "quick", results=results, resume=True, tell=pytest.fail)
    assert {path.name for path in folder.figures.iterdir()} == {"curve.svg", "figures.json"}
    assert (folder.figures / "curve.svg").read_text() == "<svg>6 6.0</svg>"
    listed = folder.read_figures(pytest.fail)
    assert listed is not None
    assert [(figure.file, figure.caption) for figure in listed.figures] == [("curve.svg", "The curve.")]


@pytest.mark.parametrize(
    ("returned", "message"),
    [("1 / 0", "the figures of growth failed: ZeroDivisionError"), ('"other.svg"', "was not written into")],
)
def test_figures_that_fail_leave_claims_and_old_figures(
    install: Callable[..., Paper], source: str, results: Path, returned: str, message: str
) -> None:
    install({"__init__.py": with_figures(source, returned)})
    folder = RunFolder(results / "growth" / "quick")
    with pytest.raises(TenfoldError, match=message):
        run_experiment(find_experiment("growth"), "quick", results=results, tell=pytest.fail)
    assert folder.read_claims(pytest.fail)
    assert not folder.figures.exists()


def test_a_claim_whose_data_is_missing_is_not_tested(
    install: Callable[..., Paper], source: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing:
        def get(self) -> Path:
            raise DataUnavailableError("data books is not to be had")

    told: list[str] = []
    monkeypatch.setattr("tenfold.data.datasets", lambda: {"books": Missing()})
    install({"__init__.py": source.replace('scales=("paper",)', 'needs=("books",)')})
    outcome = run_experiment(find_experiment("growth"), "quick", results=results, tell=told.append)
    assert outcome.claims.claims[-1].outcome == "not tested: data books not available"
    assert told == ["data books is not to be had"]


def test_data_that_nobody_names_is_found_out_before_the_work(
    install: Callable[..., Paper], source: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenfold.data.datasets", dict)
    install({"__init__.py": source.replace('scales=("paper",)', 'needs=("boks",)')})
    with pytest.raises(TenfoldError, match="no data set named 'boks'"):
        run_experiment(find_experiment("growth"), "quick", results=results, tell=pytest.fail)
    assert not (results / "growth" / "quick" / "metrics.jsonl").exists()
