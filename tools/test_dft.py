"""Run the tests marked `dft` in an environment of their own, .venv-dft, with GPAW compiled against libxc.

python tools/test_dft.py              # make the environment, then run the tests
python tools/test_dft.py --no-tests   # only make it: .venv-dft/bin/tenfold run altermag --scale laptop
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from environments import ROOT, UV, locked_version, marked_files, run, run_pytest

ENVIRONMENT = ROOT / ".venv-dft"
PYTHON = ENVIRONMENT / "bin" / "python"
PACKAGE = "altermag"
EXTRAS = ("gpaw", "peers", "reproduce")
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
    # The workspace's conftest is about torch, which is not in this environment.
    options = ["-m", "dft", f"--confcutdir=packages/{PACKAGE}"]
    files = marked_files("dft", PACKAGE)
    return run_pytest(PYTHON, [*options, *arguments, *files], OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")


def finds_libxc(compiler: str) -> bool:
    """Say whether the compiler finds libxc's header; without it GPAW's build ends in many strange lines."""
    command = [compiler, "-E", "-x", "c++", "-include", "xc.h", os.devnull]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def install(compiler: str) -> None:
    """Install the package, its extras and what its tests need, all as in uv.lock; quick when all is there.

    GPAW's sources have the suffix of C and are C++.
    """
    settings = {"UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT), "CC": compiler, "CXX": compiler}
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    run(UV, "sync", "--frozen", "--inexact", "--package", PACKAGE, *extras, **settings)
    run(UV, "pip", "install", "--quiet", "--python", PYTHON, f"pytest=={locked_version('pytest')}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
