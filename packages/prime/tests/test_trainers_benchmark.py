"""The benchmark beside TRL still runs: it follows the inner workings of two trainers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "trainers.py"


@pytest.mark.long
def test_each_of_four_trainers_takes_its_steps() -> None:
    pytest.importorskip("trl")
    sizes = ["--prompts", "16", "--samples", "2", "--tokens", "4", "--hidden", "32", "--rounds", "6"]
    done = subprocess.run([sys.executable, SCRIPT, *sizes], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "[" in line]
    assert len(rows) == 4
