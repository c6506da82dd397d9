"""Run targets of the Makefile in order and sum up: a line a stage, with its time and pytest's closing words.

    python tools/stages.py setup lint test

Stops at the first stage that fails, with its exit code.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass

# `12 passed, 1 skipped in 3.21s`, with or without pytest's rules and colours around it.
CLOSING_LINE = re.compile(r"\d+ (?:passed|failed|errors?|skipped|deselected)\b.* in [\d.]+s\b[^=\x1b]*")


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


def run(target: str) -> Stage:
    """Run `make target`, pass its output on, and keep the closing line of pytest, if there is one."""
    print(f"\n=== {target}", flush=True)
    start, tests = time.monotonic(), ""
    command = ["make", "--no-print-directory", target]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            if found := CLOSING_LINE.search(line):
                tests = found.group().strip()
    return Stage(target, process.returncode, time.monotonic() - start, tests)


def main(targets: list[str]) -> int:
    """Run the targets; return the exit code of the first that fails, or 0."""
    # Output is passed on as it comes, whatever the locale says about its letters.
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    done: list[Stage] = []
    for target in targets:
        done.append(run(target))
        if done[-1].code:
            break
    print("\n=== summary")
    print(*done, sep="\n")
    left = targets[len(done) :]
    if left:
        print(f"not run: {', '.join(left)}")
    print(f"{'total':<24} {sum(stage.seconds for stage in done):7.1f} s")
    return done[-1].code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
