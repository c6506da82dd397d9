from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tenfold import Run, Trial, TrialContext, UsageError, find_experiment
from tenfold.data import DataUnavailableError
from tenfold.log import RunLog
from tenfold.runs import TrialsFailedError

if TYPE_CHECKING:
    from conftest import Paper

SETTINGS = {"steps": 3, "pause": 0.0, "rate": 2.5, "raising": [], "exiting": []}


def trials(seeds: range, **changes: object) -> list[Trial]:
    return [Trial("a", seed, SETTINGS | changes) for seed in seeds]


@pytest.fixture
def growth(paper: Paper) -> ModuleType:
    """The module of the small paper; its trial function is `recursion`."""
    import importlib

    find_experiment(paper.name)
    return importlib.import_module(paper.package)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    directory = tmp_path / "results" / "growth" / "quick"
    directory.mkdir(parents=True)
    return Run(directory, "quick", RunLog(directory / "log.txt", pytest.fail), jobs=2)


def test_results_come_in_the_order_of_the_trials_and_equal_the_recursion(
    growth: ModuleType, run: Run
) -> None:
    wanted = trials(range(4))[::-1]
    results = run.map(growth.recursion, wanted)
    assert list(results) == wanted
    for trial, result in results.items():
        x = 0.1 + trial.seed / 100
        for _ in range(3):
            x = 2.5 * x * (1 - x)
        assert result["x"] == x
        assert result["process"] != os.getpid()


def test_a_finished_trial_is_not_run_again_and_a_changed_one_is(growth: ModuleType, run: Run) -> None:
    first = run.map(growth.recursion, trials(range(2)))
    again = run.map(growth.recursion, trials(range(3)))
    assert {trial: again[trial] for trial in first} == first  # the process id too: nothing ran
    longer = run.map(growth.recursion, trials(range(1), steps=4))
    assert next(iter(longer.values()))["x"] != next(iter(first.values()))["x"]
    assert (run.directory / "metrics.jsonl").read_text().count('"result"') == 4


def test_stages_are_kept_apart_in_the_records(growth: ModuleType, run: Run) -> None:
    sweep = [Trial("a", 0, SETTINGS, stage="sweep")]
    run.map(growth.recursion, sweep)
    run.map(growth.recursion, trials(range(2)))
    assert list(run.records().curve("a", "x")) == [0, 1]
    assert list(run.records().curve("a", "x", stage="sweep")) == [0]


def test_unlike_stages_run_together_each_by_its_own_function(
    install: Callable[..., Paper], source: str, run: Run
) -> None:
    import importlib

    paper = install(
        {"__init__.py": source + "\n\ndef length(trial, context):\n    return {'y': trial.seed}\n"}
    )
    find_experiment(paper.name)
    module = importlib.import_module(paper.package)
    parts = {"growth": module.recursion, "length": module.length}
    wanted = [Trial("a", 7, {}, "length"), Trial("a", 0, SETTINGS, "growth")]
    first, second = run.map(parts, wanted).values()
    assert (first, second["x"]) == ({"y": 7}, run.map(module.recursion, wanted[1:])[wanted[1]]["x"])
    with pytest.raises(ValueError, match="no function for the stages 'width'"):
        run.map(parts, [*wanted, Trial("a", 0, {}, "width")])
    with pytest.raises(TypeError, match="top level of a module"):
        run.map(parts | {"width": lambda trial, context: {}}, wanted)


def test_records_of_trials_no_longer_asked_for_are_left_out(growth: ModuleType, run: Run) -> None:
    run.map(growth.recursion, trials(range(1), rate=3.0))
    later = Run(run.directory, "quick", run.log)
    later.map(growth.recursion, trials(range(1)))
    assert [trial.settings["rate"] for trial in later.records().results()] == [2.5]


def test_threads_are_set_before_the_process_starts_and_ours_stay(
    growth: ModuleType, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    result = next(iter(run.map(growth.recursion, trials(range(1)), threads=3).values()))
    assert result["threads"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert "MKL_NUM_THREADS" not in os.environ


def test_no_more_processes_than_jobs(growth: ModuleType, run: Run) -> None:
    results = run.map(growth.recursion, trials(range(4)), jobs=1)
    assert len({result["process"] for result in results.values()}) == 1
    results = run.map(growth.recursion, trials(range(4, 8), pause=0.1), jobs=9)  # the user said 2
    assert len({result["process"] for result in results.values()}) == 2


def test_failing_trials_are_named_and_the_others_finish(growth: ModuleType, run: Run) -> None:
    with pytest.raises(TrialsFailedError) as error:
        run.map(growth.recursion, trials(range(5), raising=[1], exiting=[3]))
    message = str(error.value)
    assert "2 of 5 trials failed" in message
    assert "arm 'a' seed 1: ValueError: seed 1 is unlucky" in message
    assert "arm 'a' seed 3: its process ended with exit code 7" in message
    assert str(run.directory / "log.txt") in message
    assert {trial.seed for trial in run.records().results()} == {0, 2, 4}
    log = (run.directory / "log.txt").read_text()
    assert "Traceback" in log
    assert 'raise ValueError(f"seed' in log
    assert "a library says hello" in log  # what trials print goes to the log


def test_a_process_that_is_killed_fails_its_trial_only(
    growth: ModuleType, run: Run, install: Callable[..., Paper], source: str
) -> None:
    killed = "import signal\n" + source.replace("os._exit(7)", "os.kill(os.getpid(), signal.SIGKILL)")
    install({"__init__.py": killed}, name="killed")
    import importlib

    function = importlib.import_module(find_experiment("killed").run.__module__).recursion
    with pytest.raises(
        TrialsFailedError, match=r"seed 0: its process was killed by SIGKILL \(out of memory\?\)"
    ):
        run.map(function, trials(range(3), exiting=[0]))
    assert {trial.seed for trial in run.records().results()} == {1, 2}


def test_a_function_that_another_process_cannot_import_is_refused(run: Run) -> None:
    def local(trial: Trial, context: TrialContext) -> dict[str, float]:
        return {}

    with pytest.raises(TypeError, match="local' must be defined at the top level of a module"):
        run.map(local, trials(range(1)))


def test_the_same_trial_twice_is_refused(growth: ModuleType, run: Run) -> None:
    with pytest.raises(ValueError, match="arm 'a' seed 0 with the same settings was given twice"):
        run.map(growth.recursion, trials(range(1)) * 2)


def test_no_trials_give_no_results(growth: ModuleType, run: Run) -> None:
    assert run.map(growth.recursion, []) == {}


def test_data_is_asked_for_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise DataUnavailableError("data pages is not to be had; to get it, ask")

    folders = iter([Path("/data/books")])
    known = {"books": SimpleNamespace(get=lambda: next(folders)), "pages": SimpleNamespace(get=fail)}
    monkeypatch.setattr("tenfold.data.datasets", lambda: known)
    assert run.has_data("books") is run.has_data("books") is True
    told: list[str] = []
    monkeypatch.setattr(run.log, "tell", told.append)
    assert run.has_data("pages") is run.has_data("pages") is False
    assert told == ["data pages is not to be had; to get it, ask"]
    with pytest.raises(UsageError, match="no data set named 'boks'; there are: books, pages"):
        run.has_data("boks")


def test_damaged_records_lose_their_checkpoints_too(growth: ModuleType, run: Run) -> None:
    """A trial that went on from its checkpoint would leave a hole where the damage was."""
    with pytest.raises(TrialsFailedError):
        run.map(growth.recursion, trials(range(1), steps=12, raising=[0]))
    file = run.directory / "metrics.jsonl"
    assert list((run.directory / "checkpoints").glob("*/state.json"))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], b"garbage\n", *lines[3:]]))
    told: list[str] = []
    later = Run(run.directory, "quick", RunLog(run.directory / "log.txt", told.append))
    with pytest.raises(TrialsFailedError):
        later.map(growth.recursion, trials(range(1), steps=12, raising=[0]))
    assert len(told) == 1
    assert later.records().curve("a", "x")[0][0] == list(range(12))
