"""What a benchmark prints is kept under a heading, published as it is, and shown by the site."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench
import site_pages


def script(folder: Path, text: str, name: str = "speed.py") -> Path:
    path = folder / "benchmarks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_printed_is_kept_and_published(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "results" / "lpa" / "speed.txt"
    assert bench.run(script(tmp_path, "print('ratio 1.25 ≤ 2')"), kept) == 0
    assert "ratio 1.25 ≤ 2" in capfd.readouterr().out
    lines = kept.read_text(encoding="utf-8").splitlines()
    assert lines[2] == "ratio 1.25 ≤ 2"
    assert "torch" in lines[0]
    assert "load" in lines[1]
    assert "load" in lines[3]
    published = bench.publish(kept, tmp_path / "docs")
    assert published == tmp_path / "docs" / "lpa" / "speed.txt"
    assert published.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8")


def test_options_are_passed_on_and_kept_in_name_and_heading(tmp_path: Path) -> None:
    options = ["--grid", "--lengths", "64", "256"]
    path = script(tmp_path, "import sys; print(sys.argv[1:])")
    kept = tmp_path / bench.kept_as(path, options)
    assert kept.name == "speed-grid-lengths-64-256.txt"
    assert bench.run(path, kept, options) == 0
    lines = kept.read_text(encoding="utf-8").splitlines()
    assert lines[2:4] == ["# speed.py --grid --lengths 64 256", str(options)]


def test_what_fails_is_not_kept(tmp_path: Path) -> None:
    kept = tmp_path / "speed.txt"
    assert bench.run(script(tmp_path, "print('half'); raise SystemExit(3)"), kept) == 3
    assert not kept.exists()


def test_gpu_scripts_and_parts_are_left_out(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "gpu.py", "_part.py"):
        script(tmp_path, "", name)
    assert [path.name for path in bench.scripts(tmp_path)] == ["a.py", "b.py"]


def test_the_page_shows_every_published_output(tmp_path: Path) -> None:
    (tmp_path / "fope").mkdir()
    (tmp_path / "fope" / "cpu.txt").write_text("# where and when\n| ratio |\n", encoding="utf-8")
    (tmp_path / "fope" / "cpu-step.txt").write_text("# cpu.py --step\n", encoding="utf-8")
    page = site_pages.benchmarks(tmp_path)
    assert "## fope" in page
    assert page.count("`packages/fope/benchmarks/cpu.py`") == 2
    assert "```text\n# where and when\n| ratio |\n```" in page
