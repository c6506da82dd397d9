"""`make reproduce` runs every paper whatever the others do, and tells how long the rest will take."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import reproduce

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, monkeypatch: pytest.MonkeyPatch, codes: str) -> Path:
    """Put a `tenfold` in place that notes what it was asked, and ends with the code in `codes`."""
    path, asked = folder / "tenfold", folder / "asked"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        f"sys.exit({codes}.get(sys.argv[2], 0))\n"
    )
    path.chmod(0o755)
    monkeypatch.setattr(reproduce, "TENFOLD", path)
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--scale", "laptop", "one", "two"])
    return asked


def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = command(tmp_path, monkeypatch, "{'one': 3}")
    assert reproduce.main() == 1
    assert asked.read_text().splitlines() == [
        "run one --scale laptop --resume",
        "run two --scale laptop --resume",
        "report --open",
    ]
    assert capfd.readouterr().err == "failed: one\n"


def test_an_interrupted_paper_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = command(tmp_path, monkeypatch, "{'one': 130}")
    assert reproduce.main() == 130
    assert asked.read_text().splitlines() == ["run one --scale laptop --resume"]


def test_the_time_left_follows_the_pace_so_far() -> None:
    expected = {"one": 240.0, "two": 120.0, "three": 480.0}
    assert reproduce.time_left(expected, {}) == "about 14 min left"
    assert reproduce.time_left(expected, {"one": 480.0}) == "about 20 min left"
    assert reproduce.time_left(expected, {"one": 2.0}) == "about 10 min left"  # it had been run before
    assert reproduce.time_left(expected | {"new": None}, {"one": 240.0}) == "more than 10 min left"
    assert reproduce.time_left({"new": None}, {}) == ""


def test_the_published_runs_tell_how_long_they_took(tmp_path: Path) -> None:
    published = ROOT / "docs" / "results"
    seconds = reproduce.published_seconds(published / "lpa" / "quick")
    assert seconds is not None
    assert 60 < seconds < 3600
    assert reproduce.published_seconds(tmp_path) is None
