"""`make reproduce` runs every paper whatever the others do, and tells how long the rest will take."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import reproduce
from tenfold.environment import usable_cores

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str = "", papers: str = "one two") -> Path:
    """Put a `tenfold` in place that notes what it was asked, and then does what `body` says of `paper`."""
    path, asked = folder / "tenfold", folder / "asked"
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time\npaper = sys.argv[2]\n"
        f"open({str(asked)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n{body}\n"
    )
    path.chmod(0o755)
    monkeypatch.setattr(reproduce, "TENFOLD", path)
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--scale", "laptop", *papers.split()])
    return asked


def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduce, "shared_out", lambda papers: [set()])
    asked = command(tmp_path, monkeypatch, "print('a [line] of', paper); sys.exit(3 * (paper == 'one'))")
    assert reproduce.main() == 1
    assert asked.read_text().splitlines() == [
        "run one --scale laptop --resume",
        "run two --scale laptop --resume",
        "report --open",
    ]
    said, failed = capfd.readouterr()
    assert "== one: 1 of 2\none | a [line] of one\n== two: 2 of 2\ntwo | a [line] of two\n" in said
    assert failed == "failed: one\n"


def test_an_interrupted_paper_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "shared_out", lambda papers: [set()])
    asked = command(tmp_path, monkeypatch, "sys.exit(130)")
    assert reproduce.main() == 130
    assert asked.read_text().splitlines() == ["run one --scale laptop --resume"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are bound to processors on Linux")
def test_papers_run_side_by_side_each_on_its_share_of_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each waits for the other to have begun; one after the other the first would wait in vain, and fail."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one processor cannot be shared out")
    there = f"os.path.exists({str(tmp_path)!r} + '/' + {{'one': 'two', 'two': 'one'}}[paper])"
    body = (
        f"if paper in ('one', 'two'):\n"
        f"    open({str(tmp_path)!r} + '/' + paper, 'w')\n"
        f"    end = time.monotonic() + 60\n"
        f"    while not {there}:\n"
        f"        time.sleep(0.01)\n"
        f"        if time.monotonic() > end: sys.exit(1)\n"
        f"    print(sorted(os.sched_getaffinity(0)))"
    )
    command(tmp_path, monkeypatch, body)
    assert reproduce.main() == 0
    said = capfd.readouterr().out
    shares = [json.loads(line.partition(" | ")[2]) for line in said.splitlines() if " | [" in line]
    assert sorted(shares[0] + shares[1]) == sorted(cores)
    assert os.sched_getaffinity(0) == cores


def test_processors_are_shared_out_by_twos(monkeypatch: pytest.MonkeyPatch) -> None:
    def shares(cores: int, papers: int = 10) -> list[set[int]]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
        monkeypatch.setattr(os, "sched_setaffinity", None, raising=False)
        return reproduce.shared_out(papers)

    assert shares(1) == [{0}]
    assert shares(2) == [{0}, {1}]
    assert shares(3) == [{0}, {1, 2}]
    assert shares(4) == [{0, 1}, {2, 3}]
    assert shares(9) == [{0, 1}, {2, 3}, {4, 5}, {6, 7, 8}]
    assert [len(share) for share in shares(40)] == [4] * 10
    assert shares(8, papers=1) == [set(range(8))]
    monkeypatch.delattr(os, "sched_setaffinity")
    assert reproduce.shared_out(10) == [set()]


def test_the_longest_begin_first_and_the_unknown_before_them() -> None:
    board = reproduce.Board({"short": 60.0, "long": 600.0, "new": None, "middle": 120.0})
    papers = ("long", "middle", "new")
    assert [board.take(papers) for _ in range(4)] == ["new", "long", "middle", None]
    assert board.take(("short",)) == "short"
    assert reproduce.Board({"short": 60.0}, interrupted=True).take(("short",)) is None


def test_papers_that_time_something_run_after_the_others_with_all_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for paper in ("one", "two"):
        folder = tmp_path / "packages" / paper
        folder.mkdir(parents=True)
        timed = "true" if paper == "one" else "false"
        (folder / "pyproject.toml").write_text(f"[tool.tenfold]\ntimed = {timed}\n")
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    body = "print(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())"
    command(tmp_path, monkeypatch, body)
    assert reproduce.main() == 0
    said = capfd.readouterr().out
    assert said.index("two | ") < said.index("== one: 2 of 2")
    assert f"one | {usable_cores()}\n" in said


def test_the_papers_that_time_something_alone_say_so() -> None:
    packages = ROOT / "packages"
    timed = {folder.name for folder in packages.iterdir() if reproduce.is_timed(folder / "pyproject.toml")}
    assert timed == {"lpa", "memoryformer"}


def test_the_time_left_follows_the_pace_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"one": 240.0, "two": 120.0, "three": 480.0}
    monkeypatch.setattr(reproduce.time, "monotonic", lambda: 1000.0)

    def left(took: dict[str, float], began: dict[str, float], alone: str = "", lanes: int = 1) -> str:
        return reproduce.Board(expected, alone.split(), lanes, took, began).time_left()

    assert left({}, {}) == "about 14 min left"
    assert left({}, {}, lanes=2) == "about 16 min left"  # as long as the longest takes in one of them
    assert left({}, {}, alone="three", lanes=2) == "about 16 min left"  # 8 in a lane, and 8 alone
    assert left({}, {"three": 640.0}, lanes=2) == "about 11 min left"  # of 16, five are over
    assert left({"one": 480.0}, {}) == "about 20 min left"
    assert left({"one": 480.0}, {}, alone="three", lanes=2) == "about 12 min left"
    assert left({"one": 2.0}, {}) == "about 10 min left"  # it had been run before
    assert left({"one": 240.0}, {"three": 100.0}) == "about 2 min left"  # longer than expected already
    assert left({"one": 1.0, "two": 1.0, "three": 1.0}, {}) == ""
    assert reproduce.Board({"new": None, "old": 240.0}).time_left() == "more than 4 min left"
    assert reproduce.Board({"new": None}).time_left() == ""


def test_the_published_runs_tell_how_long_they_took(tmp_path: Path) -> None:
    published = ROOT / "docs" / "results"
    seconds = reproduce.published_seconds(published / "lpa" / "quick")
    assert seconds is not None
    assert 60 < seconds < 3600
    assert reproduce.published_seconds(tmp_path) is None
