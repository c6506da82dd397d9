"""Run prime's tests of its verl integration in an environment of their own, .venv-verl.

verl wants an older transformers than uv.lock has. Its trainer needs TransferQueue, which comes with its extra
`verl-core` beside much that is not needed here. There must be no TRL: verl patches a class that TRL had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / "tools" / "uv"
ENVIRONMENT = ROOT / ".venv-verl"
PYTHON = ENVIRONMENT / "bin" / "python"
PACKAGES = ("implicit-prm", "prime")
FILES = sorted(ROOT.glob("packages/prime/tests/test_integrations_verl*.py"))


def main(arguments: list[str]) -> int:
    """Make the environment if need be, run the tests, and return pytest's exit code."""
    install()
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command: list[str | Path] = [PYTHON, "-m", "pytest", *arguments, *FILES]
    return subprocess.run(command, cwd=ROOT, env=os.environ | settings).returncode


def locked_version(name: str) -> str:
    """Return the version that uv.lock has of a distribution."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    return next(package["version"] for package in lock["package"] if package["name"] == name)


def install() -> None:
    """Install verl, the packages in editable form and what the tests need; quick when all is there."""
    if not PYTHON.exists():
        run(UV, "venv", "--python", "3.11", ENVIRONMENT)
    wanted = ["verl==0.9.1", "TransferQueue>=0.1.10", f"torch=={locked_version('torch')}"]
    wanted += [f"{name}=={locked_version(name)}" for name in ("pytest", "hypothesis")]
    for package in PACKAGES:
        wanted += ["--editable", f"packages/{package}"]
    run(UV, "pip", "install", "--python", PYTHON, *wanted)


def run(*command: str | Path) -> None:
    """Run a command in the workspace; its failure ends this script."""
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
