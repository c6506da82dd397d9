"""What every sandbox gives: a Python program in, what became of it out."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Literal, Protocol

Status = Literal["ok", "error", "timeout", "memory"]

OUTPUT_BYTES = 16 * 2**20
"""The most that a program may write to one file, stdout and stderr too."""


@dataclass(frozen=True)
class SandboxResult:
    """What became of a program.

    status      "ok": it ended with exit code 0; "timeout": over its CPU or wall time; "memory": a MemoryError
                ended it; "error": anything else
    returncode  the exit code; -n where signal n ended it
    """

    status: Status
    returncode: int
    stdout: str
    stderr: str


class Sandbox(Protocol):
    """Runs one program at a time a call; any number of threads may call at once."""

    def run(self, code: str, stdin: str = "", cpu_s: float = 2, wall_s: float = 20) -> SandboxResult:
        """Run Python source as `__main__`.

        The main limit is CPU time, per process; the wall limit is there for programs that sleep and should be
        generous, since a busy machine gives a program only part of a core.
        Raises `PrimeError` if the sandbox itself fails. What the program does is never an exception.
        """
        ...


_MEMORY_ERROR = re.compile(r"(\w+\.)*\w*MemoryError\b")


def result_of(returncode: int, stdout: str, stderr: str, *, stopped: bool) -> SandboxResult:
    """The result of a program that ended so; `stopped` at the wall limit."""
    lines = stderr.rstrip().splitlines()
    status: Status
    if stopped or returncode == -signal.SIGXCPU:
        status = "timeout"
    elif returncode == 0:
        status = "ok"
    elif lines and _MEMORY_ERROR.match(lines[-1]):
        status = "memory"
    else:
        status = "error"
    return SandboxResult(status, returncode, stdout, stderr)
