"""Run prime's tests of its verl integration in an environment of their own, .venv-verl.

verl wants an older transformers than uv.lock has. Its trainer needs TransferQueue, which comes with its extra
`verl-core` beside much that is not needed here. There must be no TRL: verl patches a class that TRL had.
"""

from __future__ import annotations

import sys

from environments import ROOT, UV, locked_version, run, run_pytest

ENVIRONMENT = ROOT / ".venv-verl"
PYTHON = ENVIRONMENT / "bin" / "python"
PACKAGES = ("implicit-prm", "prime")
FILES = sorted(ROOT.glob("packages/prime/tests/test_integrations_verl*.py"))


def main(arguments: list[str]) -> int:
    """Make the environment if need be, run the tests, and return pytest's exit code."""
    install()
    return run_pytest(PYTHON, [*arguments, *FILES], HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")


def install() -> None:
    """Install verl, the packages in editable form and what the tests need; quick when all is there."""
    if not PYTHON.exists():
        run(UV, "venv", "--python", "3.11", ENVIRONMENT)
    wanted = ["verl==0.9.1", "TransferQueue>=0.1.10", f"torch=={locked_version('torch')}"]
    wanted += ["cachetools", "fastapi", "uvicorn"]  # verl imports them; a rollout engine would bring them
    wanted += [f"{name}=={locked_version(name)}" for name in ("pytest", "hypothesis")]
    for package in PACKAGES:
        wanted += ["--editable", f"packages/{package}"]
    run(UV, "pip", "install", "--python", PYTHON, *wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
