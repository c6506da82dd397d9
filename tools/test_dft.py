"""Run the tests marked `dft` in an environment of their own, .venv-dft, with GPAW compiled against libxc.

python tools/test_dft.py              # make the environment, then run the tests
python tools/test_dft.py --no-tests   # only make it: .venv-dft/bin/tenfold run altermag --scale laptop
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / "tools" / "uv"
ENVIRONMENT = ROOT / ".venv-dft"
PYTHON = ENVIRONMENT / "bin" / "python"
PACKAGE = "altermag"
EXTRAS = ("gpaw", "peers", "reproduce")
MARK = re.compile(r"\bmark\.dft\b")
NEEDED = """the tests marked dft need a C++ compiler, libxc and BLAS, which GPAW is compiled against:
  Debian, Ubuntu: apt-get install g++ libxc-dev libopenblas-dev
  macOS:          brew install gcc libxc openblas"""


def main(arguments: list[str]) -> int:
    """Make the environment if need be, run the tests, and return pytest's exit code."""
    compiler = shutil.which("g++")
    if not (PYTHON.exists() or (compiler and finds_libxc(compiler))):
        print(NEEDED, file=sys.stderr)
        return 2
    install(compiler or "g++")
    if arguments == ["--no-tests"]:
        return 0
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    files = marked_files()
    # The workspace's conftest is about torch, which is not in this environment.
    options = ["-m", "dft", f"--confcutdir=packages/{PACKAGE}"]
    command: list[str | Path] = [PYTHON, "-m", "pytest", *options, *arguments, *files]
    return subprocess.run(command, cwd=ROOT, env=os.environ | threads).returncode


def marked_files() -> list[Path]:
    """Return the test files that have a test marked dft. Others may import what the environment lacks."""
    files = sorted(ROOT.glob(f"packages/{PACKAGE}/tests/**/test_*.py"))
    return [file for file in files if MARK.search(file.read_text(encoding="utf-8"))]


def finds_libxc(compiler: str) -> bool:
    """Say whether the compiler finds libxc's header; without it GPAW's build ends in many strange lines."""
    command = [compiler, "-E", "-x", "c++", "-include", "xc.h", os.devnull]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def locked_version(name: str) -> str:
    """Return the version that uv.lock has of a distribution."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    return next(package["version"] for package in lock["package"] if package["name"] == name)


def install(compiler: str) -> None:
    """Install the package, its extras and what its tests need, all as in uv.lock; quick when all is there.

    GPAW's sources have the suffix of C and are C++.
    """
    settings = {"UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT), "CC": compiler, "CXX": compiler}
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    run(UV, "sync", "--frozen", "--inexact", "--package", PACKAGE, *extras, **settings)
    run(UV, "pip", "install", "--quiet", "--python", PYTHON, f"pytest=={locked_version('pytest')}")


def run(*command: str | Path, **settings: str) -> None:
    """Run a command in the workspace; its failure ends this script."""
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
