"""What the scripts share that run tests in an environment of their own: vLLM, GPAW, verl, newest releases."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / "tools" / "uv"


def run(*command: str | Path, **settings: str) -> None:
    """Run a command in the workspace, with environment variables; its failure ends the script."""
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings)
    if done.returncode:
        sys.exit(done.returncode)


def run_pytest(python: Path, arguments: list[str | Path], **settings: str) -> int:
    """Run pytest of an environment in the workspace, with environment variables; return its exit code."""
    command = [python, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | settings).returncode


def locked_version(name: str) -> str:
    """Return the version that uv.lock has of a distribution."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    return next(package["version"] for package in lock["package"] if package["name"] == name)


def marked_files(mark: str, package: str = "*") -> list[Path]:
    """Return the test files that have a test with that mark. Others may import what the environment lacks."""
    marked = re.compile(rf"\bmark\.{mark}\b")
    files = sorted(ROOT.glob(f"packages/{package}/tests/**/test_*.py"))
    return [file for file in files if marked.search(file.read_text(encoding="utf-8"))]
