"""Run tests under the newest releases of all dependencies, in an environment of their own, .venv-newest.

Whoever installs a package with pip gets these; uv.lock holds some back, transformers above all, for vLLM.

    python tools/test_newest.py                 # the ordinary tests of all packages
    python tools/test_newest.py packages/fope   # pytest's arguments
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from environments import ROOT, UV, run, run_pytest

ENVIRONMENT = ROOT / ".venv-newest"
PYTHON = ENVIRONMENT / "bin" / "python"
# They want environments of their own, or a compiler, as in `make setup`.
LEFT_OUT = {"vllm", "gpaw", "llama-cpp"}
ORDINARY = "not slow and not long and not gpu and not vllm and not dft and not site and not network"


def main(arguments: list[str]) -> int:
    """Bring the environment to the newest releases, run the tests, and return pytest's exit code."""
    if not PYTHON.exists():
        run(UV, "venv", "--python", sys.executable, ENVIRONMENT)
    packages = [word for file in sorted(ROOT.glob("packages/*/pyproject.toml")) for word in editable(file)]
    run(UV, "pip", "install", "--upgrade", "--python", PYTHON, "--group", "dev", *packages)
    return run_pytest(PYTHON, ["-m", ORDINARY, *arguments])


def editable(pyproject: Path) -> list[str]:
    """Return pip's words for a package in editable form with its extras."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = ",".join(name for name in project.get("optional-dependencies", {}) if name not in LEFT_OUT)
    folder = pyproject.parent.relative_to(ROOT)
    return ["--editable", f"./{folder}[{extras}]" if extras else f"./{folder}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
