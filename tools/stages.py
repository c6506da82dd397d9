"""Run targets of the Makefile in order and sum up: a line a stage, with its time and pytest's closing words.

    python tools/stages.py setup lint test docs,wheels

Targets with commas between run side by side, at most one a processor, and are asked to keep to one thread
each. Nothing new starts after a stage that fails; the exit code is that of the first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

# `12 passed, 1 skipped in 3.21s`, with or without pytest's rules and colours around it.
CLOSING_LINE = re.compile(r"\d+ (?:passed|failed|errors?|skipped|deselected)\b.* in [\d.]+s\b[^=\x1b]*")
SPEAKING = threading.Lock()
"""Held for a line, so that lines of two stages do not mix."""


@dataclass(frozen=True)
class Stage:
    """A target that has run."""

    target: str
    code: int
    seconds: float
    tests: str

    def __str__(self) -> str:
        outcome = "ok" if self.code == 0 else f"FAILED ({self.code})"
        return f"{self.target:<12} {outcome:<11} {self.seconds:7.1f} s  {self.tests}".rstrip()


def say(text: str) -> None:
    """Print whole lines at once."""
    with SPEAKING:
        sys.stdout.write(text)
        sys.stdout.flush()


def run(target: str, prefix: str = "", **settings: str) -> Stage:
    """Run `make target`, pass its output on, and keep the closing line of pytest, if there is one."""
    say(f"\n=== {target}\n")
    start, tests = time.monotonic(), ""
    command = ["make", "--no-print-directory", target]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=settings | os.environ,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(prefix + line)
            if found := CLOSING_LINE.search(line):
                tests = found.group().strip()
    return Stage(target, process.returncode, time.monotonic() - start, tests)


def run_group(targets: list[str]) -> list[Stage]:
    """Run targets side by side, their lines marked; those not begun when one fails are left out."""
    if len(targets) == 1:
        return [run(targets[0])]
    done: list[Stage] = []

    def run_next(target: str) -> None:
        if not any(stage.code for stage in done):
            # OpenMP's threads wait for each other in loops: where processors are taken, at the others' cost.
            done.append(run(target, f"{target} | ", OMP_NUM_THREADS="1"))

    with ThreadPoolExecutor(min(len(targets), os.cpu_count() or 1)) as pool:
        list(pool.map(run_next, targets))
    return done


def main(groups: list[str]) -> int:
    """Run the groups of targets; return the exit code of the first stage that fails, or 0."""
    # Output is passed on as it comes, whatever the locale says about its letters.
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    targets = [target for group in groups for target in group.split(",")]
    done: list[Stage] = []
    start = time.monotonic()
    for group in groups:
        done += run_group(group.split(","))
        if any(stage.code for stage in done):
            break
    print("\n=== summary")
    print(*done, sep="\n")
    if left := [target for target in targets if target not in {stage.target for stage in done}]:
        print(f"not run: {', '.join(left)}")
    print(f"{'total':<24} {time.monotonic() - start:7.1f} s")
    return next((stage.code for stage in done if stage.code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
