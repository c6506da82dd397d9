"""The summary tells each stage's time and pytest's closing words, and the first failure ends the run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "stages.py"
MAKEFILE = """
good:
\t@echo '=== 12 passed, 1 skipped, 3 deselected in 4.56s (0:00:04) ==='
bad:
\t@echo 'naïve letters'; exit 7
later:
\t@echo never
one:
\t@touch one; while ! test -e two; do sleep 0.05; done; echo 'met two'
two:
\t@touch two; while ! test -e one; do sleep 0.05; done; echo 'met one'
threads:
\t@echo "threads: $${OMP_NUM_THREADS:-all}"
"""


def run(folder: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    (folder / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "LC_", "LANG"))
    }
    return subprocess.run(
        [sys.executable, str(SCRIPT), *targets],
        cwd=folder,
        env=environment | {"LC_ALL": "C"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )


def test_a_line_a_stage(tmp_path: Path) -> None:
    done = run(tmp_path, "good", "good")
    assert done.returncode == 0
    summary = done.stdout.partition("=== summary\n")[2].splitlines()
    row = r"good +ok +\d+\.\d s  12 passed, 1 skipped, 3 deselected in 4\.56s \(0:00:04\)"
    assert [bool(re.fullmatch(row, line)) for line in summary] == [True, True, False]
    assert re.fullmatch(r"total +\d+\.\d s", summary[2])


def test_the_first_failure_ends_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, "good", "bad", "later")
    assert done.returncode == 2  # what make makes of a recipe's failure
    assert "naïve letters" in done.stdout
    assert "never" not in done.stdout
    assert re.search(r"^bad +FAILED \(2\)", done.stdout, flags=re.MULTILINE)
    assert "not run: later\n" in done.stdout


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="side by side means a processor each")
def test_targets_with_a_comma_between_run_side_by_side(tmp_path: Path) -> None:
    done = run(tmp_path, "one,two", "good")
    assert done.returncode == 0
    assert {"one | met two", "two | met one"} <= set(done.stdout.splitlines())
    summary = done.stdout.partition("=== summary\n")[2].splitlines()
    assert {line.split()[0] for line in summary[:2]} == {"one", "two"}
    assert summary[2].startswith("good ")


def test_only_side_by_side_and_unless_told_otherwise_a_stage_keeps_to_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "threads | threads: 1" in run(tmp_path, "threads,good").stdout
    assert "threads: all" in run(tmp_path, "threads", "good").stdout
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "threads | threads: 3" in run(tmp_path, "threads,good").stdout


def test_a_failure_side_by_side_ends_the_run_too(tmp_path: Path) -> None:
    done = run(tmp_path, "bad,good", "later")
    assert done.returncode == 2
    assert "bad | naïve letters" in done.stdout
    assert "never" not in done.stdout
    assert "later\n" in done.stdout.partition("not run: ")[2]
