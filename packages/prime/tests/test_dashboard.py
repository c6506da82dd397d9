from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from implicit_prime.config import PrimeConfig
from implicit_prime.dashboard import Dashboard, sparkline

METRICS = {"reward/mean": 0.25, "prm/accuracy": float("nan"), "rollout/pass_rate": 0.5, "time/prm": 1.5}


def shown(terminal: bool, **settings: int) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    args = PrimeConfig(output_dir="unused", **settings)
    with Dashboard(args, 4, console=console) as board:
        for step in (1, 2, 3, 4):
            board.log(step, METRICS | {"reward/mean": step / 8})
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_without_a_terminal_there_is_a_line_every_so_many_steps() -> None:
    assert shown(terminal=False, logging_steps=2).splitlines() == [
        "step 2/4: reward/mean 0.25, prm/accuracy nan, rollout/pass_rate 0.5",
        "step 4/4: reward/mean 0.5, prm/accuracy nan, rollout/pass_rate 0.5",
    ]


def test_in_a_terminal_there_is_a_table_with_its_history() -> None:
    last = shown(terminal=True).rsplit("step 4/4", 1)[1]
    assert "reward/mean" in last
    assert "▁▃▆█" in last
    assert "time/prm" in last


def test_bars_go_from_the_least_to_the_greatest() -> None:
    assert sparkline([0, 7, 3.5]) == "▁█▅"
    assert sparkline([2, 2]) == "▁▁"


def test_tensorboard_gets_every_metric(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    args = PrimeConfig(output_dir=str(tmp_path), report_to="tensorboard")
    with Dashboard(args, None, console=Console(file=io.StringIO())) as board:
        board.log(3, METRICS)
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == set(METRICS)
    assert [(event.step, event.value) for event in events.Scalars("reward/mean")] == [(3, 0.25)]
