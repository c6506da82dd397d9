"""A run that is killed, once or again and again, ends with the numbers of one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pytest

from tenfold import Records, Trial
from tenfold.records import load_records
from tenfold.results import RunFolder

if TYPE_CHECKING:
    from conftest import Paper

STEPS, TRIALS = 30, 6
SLOW = ("--set", f"steps={STEPS}", "--set", "pause=0.02", "--jobs", "2")  # trials of 0.6 s, two at a time
LINES = TRIALS * (STEPS + 1)  # of metrics.jsonl: the measurements and the result of each trial
KILLS = 10


def start(paper: Paper, cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        paper.command("run", paper.name, *SLOW, *arguments),
        cwd=cwd,
        env=paper.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def wait_for_the_end_of(family: list[psutil.Process]) -> None:
    """No trial process outlives the command that started it for long."""
    wait_for(lambda: not any(map(_is_alive, family)), 600)


def finished(folder: RunFolder) -> set[Trial]:
    """The trials with a result, read without touching the file."""
    if not folder.records_file.exists():
        return set()
    lines = folder.records_file.read_bytes().splitlines()
    ended = [json.loads(line) for line in lines if line.startswith(b"{") and b'"result"' in line]
    return {Trial(line["arm"], line["seed"], line["settings"], line["stage"]) for line in ended}


def without_process(records: Records) -> dict[Trial, dict[str, object]]:
    return {trial: result | {"process": None} for trial, result in records.results().items()}


@pytest.fixture
def clock() -> random.Random:
    """Where the random moments come from: always the same, or those of another seed."""
    return random.Random(int(os.environ.get("TENFOLD_TEST_SEED", "0")))


class Calm(NamedTuple):
    """A run that nobody disturbed, and how long it took to its first record."""

    folder: RunFolder
    first_record: float


@pytest.fixture
def calm(paper: Paper, tmp_path: Path) -> Calm:
    (tmp_path / "calm").mkdir()
    folder = RunFolder(tmp_path / "calm" / "results" / "growth" / "quick")
    begin = time.monotonic()
    process = start(paper, tmp_path / "calm")
    wait_for(folder.records_file.exists, 600)
    first_record = time.monotonic() - begin
    assert process.wait(600) == 0, process.communicate()
    assert number_of_lines(folder) == LINES
    return Calm(folder, first_record)


def number_of_lines(folder: RunFolder) -> int:
    return folder.records_file.read_bytes().count(b"\n") if folder.records_file.exists() else 0


def resume(paper: Paper, cwd: Path) -> None:
    process = start(paper, cwd, "--resume")
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "C1" in output


def assert_same_numbers(wild: RunFolder, calm: RunFolder) -> None:
    assert wild.records_file.read_text().count('"result"') == TRIALS, "a finished trial was run again"
    expected, found = (load_records(f.records_file, pytest.fail).records for f in (calm, wild))
    assert without_process(found) == without_process(expected)
    for arm in ("slow", "fast"):
        assert found.curve(arm, "x") == expected.curve(arm, "x")
        assert list(found.curve(arm, "x")[0][0]) == list(range(STEPS))
    assert wild.metrics_file.read_bytes() == calm.metrics_file.read_bytes()
    claims, calm_claims = wild.read_claims(pytest.fail), calm.read_claims(pytest.fail)
    assert claims is not None
    assert calm_claims is not None
    assert claims.claims == calm_claims.claims
    assert not wild.checkpoints.exists()


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_resumes_to_the_same_numbers(
    paper: Paper, tmp_path: Path, calm: Calm, clock: random.Random
) -> None:
    """Ten runs, each killed once, at moments spread over the work, and then resumed to the end."""

    def killed(where: Path, moment: int, pause: float, power_cut: bool) -> bool:
        """Start a run and kill it; False if it ended first, as it may where the machine is busy."""
        where.mkdir()
        folder = RunFolder(where / "results" / "growth" / "quick")
        process = start(paper, where)
        wait_for(lambda: number_of_lines(folder) >= moment, 600)
        time.sleep(pause)
        family = _children(process)
        if power_cut and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        code = process.wait()
        wait_for_the_end_of(family)
        if code == 0 or folder.read_claims(pytest.fail) is not None:
            return False
        assert code == -signal.SIGKILL
        return True

    def kill_and_resume(moment: int, pause: float, power_cut: bool) -> None:
        places = (tmp_path / f"killed after {moment} lines, {attempt}" for attempt in range(10))
        where = next((place for place in places if killed(place, moment, pause, power_cut)), None)
        assert where is not None, "the run always ended before it could be killed"
        resume(paper, where)
        assert_same_numbers(RunFolder(where / "results" / "growth" / "quick"), calm.folder)

    with ThreadPoolExecutor(2) as pool:  # two runs side by side: they sleep most of the time
        rounds = []
        for part in range(KILLS):
            moment = int((LINES - 1) * (part + clock.random()) / KILLS)
            power_cut = part % 2 == 1  # every other time the trials are killed with the command
            rounds.append(pool.submit(kill_and_resume, moment, clock.uniform(0, 0.01), power_cut))
        for done in rounds:
            done.result()


@pytest.mark.slow
def test_a_run_killed_again_and_again_gets_on_and_ends_with_the_same_numbers(
    paper: Paper, tmp_path: Path, calm: Calm, clock: random.Random
) -> None:
    wild = tmp_path / "wild"
    wild.mkdir()
    folder = RunFolder(wild / "results" / "growth" / "quick")
    done: set[Trial] = set()
    for _ in range(KILLS // 2):
        process = start(paper, wild, "--resume")
        time.sleep(clock.uniform(0.1, calm.first_record + 0.3))  # also before there is anything
        family = _children(process)
        process.kill()
        process.wait()
        wait_for_the_end_of(family)
        assert done <= finished(folder)
        done = finished(folder)
    resume(paper, wild)
    assert_same_numbers(folder, calm.folder)


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # ended, only not yet collected by the system
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A shell's background jobs ignore SIGINT, and so would the processes they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the default again after exec
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_says_how_to_go_on(paper: Paper, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "results" / "growth" / "quick")
    process = start(paper, tmp_path)
    wait_for(lambda: folder.records_file.exists(), 600)
    family = _children(process)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to every process of the command
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "repeat the command with --resume" in errors
    assert "Traceback" not in errors + folder.log_file.read_text()
    wait_for_the_end_of(family)
    resumed = start(paper, tmp_path, "--resume")
    assert resumed.wait(600) == 0
