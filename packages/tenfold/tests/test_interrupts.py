"""A run that is killed again and again ends with the numbers of one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tenfold import Records, Trial
from tenfold.records import load_records
from tenfold.results import RunFolder

if TYPE_CHECKING:
    from conftest import Paper

SLOW = ("--set", "steps=30", "--set", "pause=0.02", "--jobs", "2")  # six trials of 0.6 s, two at a time
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
    """No trial process outlives the command that started it by more than three seconds."""
    wait_for(lambda: not any(map(_is_alive, family)), 3)


def finished(folder: RunFolder) -> set[Trial]:
    """The trials with a result, read without touching the file."""
    if not folder.records_file.exists():
        return set()
    lines = folder.records_file.read_bytes().splitlines()
    ended = [json.loads(line) for line in lines if line.startswith(b"{") and b'"result"' in line]
    return {Trial(line["arm"], line["seed"], line["settings"], line["stage"]) for line in ended}


def without_process(records: Records) -> dict[Trial, dict[str, object]]:
    return {trial: result | {"process": None} for trial, result in records.results().items()}


def test_ten_kills_do_not_change_a_number(paper: Paper, tmp_path: Path) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    calm.mkdir()
    wild.mkdir()
    expected, folder = (RunFolder(where / "results" / "growth" / "quick") for where in (calm, wild))

    begin = time.monotonic()
    process = start(paper, calm)
    wait_for(lambda: expected.records_file.exists(), 30)
    first_record = time.monotonic() - begin
    assert process.wait(30) == 0, process.communicate()

    seed = int(os.environ.get("TENFOLD_TEST_SEED", time.time_ns() % 10**6))
    print(f"TENFOLD_TEST_SEED={seed}")
    clock = random.Random(seed)
    done: set[Trial] = set()
    for _ in range(KILLS):
        process = start(paper, wild, "--resume")
        time.sleep(clock.uniform(0.1, first_record + 0.3))
        family = _children(process)
        process.kill()
        process.wait()
        wait_for_the_end_of(family)
        assert done <= finished(folder)
        done = finished(folder)

    last = start(paper, wild, "--resume")
    output, errors = last.communicate(timeout=60)
    assert last.returncode == 0, errors
    assert "C1" in output

    log = folder.records_file.read_text()
    assert log.count('"result"') == 6, "a finished trial was run again"
    calm_records, wild_records = (
        load_records(f.records_file, pytest.fail).records for f in (expected, folder)
    )
    assert without_process(wild_records) == without_process(calm_records)
    for arm in ("slow", "fast"):
        assert wild_records.curve(arm, "x") == calm_records.curve(arm, "x")
        assert list(wild_records.curve(arm, "x")[0][0]) == list(range(30))
    assert folder.metrics_file.read_bytes() == expected.metrics_file.read_bytes()
    claims, calm_claims = folder.read_claims(pytest.fail), expected.read_claims(pytest.fail)
    assert claims is not None
    assert calm_claims is not None
    assert claims.claims == calm_claims.claims
    assert not folder.checkpoints.exists()


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


def test_ctrl_c_says_how_to_go_on(paper: Paper, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "results" / "growth" / "quick")
    process = start(paper, tmp_path)
    wait_for(lambda: folder.records_file.exists(), 30)
    family = _children(process)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to every process of the command
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "repeat the command with --resume" in errors
    assert "Traceback" not in errors + folder.log_file.read_text()
    wait_for_the_end_of(family)
    resumed = start(paper, tmp_path, "--resume")
    assert resumed.wait(60) == 0
