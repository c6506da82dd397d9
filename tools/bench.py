"""Run the benchmarks of packages and keep what they print, or publish what was kept.

    python tools/bench.py lpa fope                      # make bench-lpa bench-fope
    python tools/bench.py 'omnirl/stepping.py --ppo'    # one script, with options
    python tools/bench.py --publish

Each script's output goes to results/benchmarks/<package>/<script>.txt, or <script>-<options>.txt, under a
heading that says when, where and with which versions. `--publish` copies these files to docs/benchmarks/,
from which the site's page of benchmarks is made: nobody types a number.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tenfold.environment import cpu_model, git_state, usable_cores
from tenfold.storage import write_atomically

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("torch", "numpy")  # what decides a number most


def main() -> int:
    """Run the packages named on the command line, or publish; return the first exit code that is not 0."""
    parser = argparse.ArgumentParser(description="Run benchmarks and keep what they print, or publish it.")
    parser.add_argument("wanted", nargs="*", help="PACKAGE, or 'PACKAGE/SCRIPT.py OPTIONS'")
    parser.add_argument("--publish", action="store_true", help="copy what was kept to docs/benchmarks")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "benchmarks")
    arguments = parser.parse_args()
    for wanted in arguments.wanted:
        package, _, command = wanted.partition("/")
        folder, (name, *options) = ROOT / "packages" / package, shlex.split(command) or [""]
        for script in [folder / "benchmarks" / name] if name else scripts(folder):
            if code := run(script, arguments.results / package / kept_as(script, options), options):
                return code
    if arguments.publish:
        for kept in sorted(arguments.results.glob("*/*.txt")):
            print(f"published {publish(kept, ROOT / 'docs' / 'benchmarks')}")
    return 0


def scripts(package: Path) -> list[Path]:
    """Return a package's benchmarks for the CPU; `gpu.py` is for `make gpu`, `_*` are parts of others."""
    found = sorted((package / "benchmarks").glob("*.py"))
    return [script for script in found if script.name != "gpu.py" and not script.name.startswith("_")]


def kept_as(script: Path, options: Sequence[str]) -> str:
    """Return the name of the file for a script's output: the script's, a hyphen, and its options."""
    return re.sub(r"[^\w.]+", "-", " ".join([script.stem, *options])) + ".txt"


def run(script: Path, target: Path, options: Sequence[str] = ()) -> int:
    """Run one script, pass its output on, and keep it in `target` if it succeeds; return its exit code."""
    print(f"== {script}", flush=True)
    lines = [heading(script, options)]
    with subprocess.Popen(
        [sys.executable, str(script), *options],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line)
    if process.returncode == 0:
        lines.append(f"# load when it ended: {os.getloadavg()[0]:.1f}\n")
        write_atomically(target, "".join(lines))
    return process.returncode


def heading(script: Path, options: Sequence[str]) -> str:
    """Return the lines that say when, where and with what the numbers were made."""
    state = git_state(script)
    commit = (
        "no commit" if state is None else f"commit {state.commit[:7]}{' with changes' if state.dirty else ''}"
    )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    command = f"# {script.name} {shlex.join(options)}\n" if options else ""
    return (
        f"# {datetime.now(UTC):%Y-%m-%d}, {commit}, Python {platform.python_version()}, {versions}\n"
        f"# {cpu_model()}, {usable_cores()} cores, load when it began: {os.getloadavg()[0]:.1f}\n{command}"
    )


def publish(kept: Path, folder: Path) -> Path:
    """Copy one kept output to where the site finds it; return its place."""
    target = folder / kept.parent.name / kept.name
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(kept, target))


if __name__ == "__main__":
    sys.exit(main())
