"""The machine, the software and the source that a run was made with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tenfold.results import Environment, GitState


def describe_environment(
    source: Path | None, config_sha256: str, seeds: Iterable[int], assignments: Iterable[str] = ()
) -> Environment:
    """Return the present environment. `source` is a file of the experiment, for the git commit."""
    import psutil

    return Environment(
        started=datetime.now(UTC).replace(microsecond=0),
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        config_sha256=config_sha256,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=installed_packages(),
        cpu=cpu_model(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        gpus=gpus(),
        git=git_state(source) if source is not None else None,
        seeds=sorted(set(seeds)),
        assignments=list(assignments),
    )


def usable_cores() -> int:
    """Return the number of logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed_packages() -> dict[str, str]:
    """Return {distribution: version} of all that is installed, by name."""
    found = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"]}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """Return name, driver and memory of every NVIDIA GPU, as nvidia-smi prints them."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    return [line.strip() for line in (listed or "").splitlines() if line.strip()]


def git_state(source: Path) -> GitState | None:
    """Return the commit of the checkout that tracks the file `source`; None if no git repository does."""
    folder = str(source.parent)
    if _output("git", "-C", folder, "ls-files", "--error-unmatch", "--", source.name) is None:
        return None
    commit = _output("git", "-C", folder, "rev-parse", "HEAD")
    changes = _output("git", "-C", folder, "status", "--porcelain")
    return GitState(commit=commit.strip(), dirty=bool(changes)) if commit else None


def changes_between(before: Environment, now: Environment) -> list[str]:
    """Return what differs and may change numbers, one line each: a resumed run mixes the two."""
    changes = [
        f"{field}: {getattr(before, field)} -> {getattr(now, field)}"
        for field in ("python", "platform", "cpu", "gpus", "git")
        if getattr(before, field) != getattr(now, field)
    ]
    for name in sorted(before.packages.keys() | now.packages.keys(), key=str.lower):
        old, new = before.packages.get(name, "absent"), now.packages.get(name, "absent")
        if old != new:
            changes.append(f"{name}: {old} -> {new}")
    return changes


def _output(*command: str) -> str | None:
    """Return what a command prints, None if it fails or is not there: the record then lacks that fact."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
