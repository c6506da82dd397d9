"""A scaffolded paper passes all that `make lint test` asks, and the import contracts see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import new_paper

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one paper, just scaffolded; the ground packages are those installed here."""
    root = tmp_path_factory.mktemp("workspace")
    for name in ("pyproject.toml", "LICENSE", "Makefile"):
        shutil.copyfile(ROOT / name, root / name)
    new_paper.scaffold("zeta-ball", "Zeta: What the Ball Knows", root)
    return root


def run(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the workspace's tools in the scaffolded workspace."""
    environment = os.environ | {
        "PYTHONPATH": str(workspace / "packages/zeta-ball/src"),
        "MYPYPATH": str(workspace / "packages/zeta-ball/src"),
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        arguments, cwd=workspace, env=environment, capture_output=True, text=True, timeout=600
    )


def test_its_errors_have_its_name(workspace: Path) -> None:
    errors = (workspace / "packages/zeta-ball/src/zeta_ball/errors.py").read_text(encoding="utf-8")
    assert "class ZetaBallError(ValueError):" in errors


def script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        (script("ruff"), "format", "--check", "."),
        (script("ruff"), "check", "."),
        (script("mypy"), "packages/zeta-ball/src"),
        (script("lint-imports"), "--no-logo", "--no-cache"),
        (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "packages/zeta-ball"),
    ],
    ids=["format", "lint", "types", "imports", "tests"],
)
def test_a_new_paper_passes(workspace: Path, command: tuple[str, ...]) -> None:
    done = run(workspace, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_makefile_finds_it(workspace: Path) -> None:
    assert "papers:   zeta-ball\n" in run(workspace, "make", "help").stdout


@pytest.mark.parametrize(
    ("line", "contract"),
    [
        ("import tenfold", "tenfold"),
        ("import lmlab.packing", "lmlab"),
        ("import lpa", "Papers"),
    ],
)
def test_an_import_upwards_or_sideways_breaks_its_contract(workspace: Path, line: str, contract: str) -> None:
    method = workspace / "packages/zeta-ball/src/zeta_ball/descent.py"
    before = method.read_text()
    try:
        method.write_text(f"{before}\n\ndef late() -> None:\n    {line}\n")
        done = run(workspace, script("lint-imports"), "--no-logo", "--no-cache")
    finally:
        method.write_text(before)
    assert done.returncode == 1
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert [row.partition(":")[0] for row in broken] == [contract]
    assert f"- zeta_ball.descent -> {line.split()[1]} (l." in done.stdout


def test_every_package_is_under_the_contracts() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert listed == sorted(path.parent.name for path in ROOT.glob("packages/*/src/*/__init__.py"))


@pytest.mark.parametrize(
    ("name", "title", "message"),
    [
        ("Zeta", "Zeta", "'Zeta' is no package name"),
        ("zeta_ball", "Zeta", "'zeta_ball' is no package name"),
        ("json", "Json", "would hide Python's own module json"),
        ("zeta", "", "1 to 80 letters"),
        ("zeta", 'The "Zeta" Paper', "without double quotes"),
        ("zeta-ball", "Zeta", "packages/zeta-ball exists"),
    ],
)
def test_a_name_or_title_that_cannot_be_is_refused(
    workspace: Path, name: str, title: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        new_paper.scaffold(name, title, workspace)
