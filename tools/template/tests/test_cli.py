from __future__ import annotations

import json

import pytest

from new_paper.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    """What the command prints, to stdout and to stderr."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code or 0) == code
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_rates(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "rates", "9")
    assert out.split() == ["gradient_descent", "0.8000", "heavy_ball", "0.5000"]
    assert json.loads(run(capsys, "rates", "9", "--json")[0]) == {"gradient_descent": 0.8, "heavy_ball": 0.5}


def test_a_mistake_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, "rates", "0.5", code=2)
    assert err.startswith("new-paper: the curvature goes from mu=1.0 to lipschitz=0.5")
    _, err = run(capsys, "reproduce", "--jobs", "many", code=2)
    assert "--jobs" in err
