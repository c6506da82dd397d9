from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tasks.py"


def test_without_its_peer_the_benchmark_shows_our_times_and_how_to_have_the_peer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("task_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.syspath_prepend(SCRIPT.parent)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setitem(sys.modules, "xenoverse", None)
    monkeypatch.setitem(benchmark.OUR_TASKS, 16, 4)
    monkeypatch.setattr(sys, "argv", ["tasks.py", "--sizes", "16", "--repeats", "1"])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert "uv run --no-project --with . --with xenoverse==0.1.14.0" in lines[0]
    assert sum(line.startswith("| 16 | ") for line in lines) == 2
    assert "| states | ours |" in lines
