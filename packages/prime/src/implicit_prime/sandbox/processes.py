"""One limited process: what bubblewrap and plain rlimits have in common."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from implicit_prime.errors import PrimeError
from implicit_prime.sandbox.base import OUTPUT_BYTES

ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",  # threads count as processes
}


@dataclass(frozen=True)
class Ended:
    """A process that has ended: exit code, what it wrote, and whether the wall limit stopped it."""

    returncode: int
    stdout: str
    stderr: str
    stopped: bool


def rlimits(memory_mb: int, cpu_s: float) -> dict[str, tuple[int, int]]:
    """The limits of every process, soft and hard. CPU: SIGXCPU at the soft one, SIGKILL a second later.

    Raises `PrimeError` for a limit that is not positive.
    """
    if not memory_mb >= 1 or not cpu_s > 0:
        raise PrimeError(f"memory_mb={memory_mb} and cpu_s={cpu_s} must be positive")
    memory, seconds = memory_mb * 2**20, math.ceil(cpu_s)
    return {
        "RLIMIT_AS": (memory, memory),
        "RLIMIT_CPU": (seconds, seconds + 1),
        "RLIMIT_FSIZE": (OUTPUT_BYTES, OUTPUT_BYTES),
        "RLIMIT_NOFILE": (64, 64),
        "RLIMIT_CORE": (0, 0),
    }


def run_program(
    command: Sequence[str],
    limits: Mapping[str, tuple[int, int]],
    code: str,
    stdin: str,
    wall_s: float,
    *,
    cwd: str = "/",
    pass_fds: Sequence[int] = (),
) -> Ended:
    """Run source code by `command`, which is a Python, or ends with one.

    Input and output are files without a name: nothing can block on a pipe, and the kernel caps what is
    written. At the wall limit the whole process group is killed.
    """
    with _file(code) as source, _file(stdin) as given, _file() as out, _file() as err:
        os.fchmod(given.fileno(), 0o444)  # for open("/dev/stdin") as another user
        settings = [f"{name}={soft}:{hard}" for name, (soft, hard) in limits.items()]
        process = subprocess.Popen(
            [*command, "-I", "-c", _bootstrap(), str(source.fileno()), *settings],
            stdin=given,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env=ENVIRONMENT,
            pass_fds=(source.fileno(), *pass_fds),
            start_new_session=True,
        )
        stopped = False
        try:
            process.wait(wall_s)
        except subprocess.TimeoutExpired:
            stopped = True
        finally:  # on Ctrl-C too: nothing stays behind
            _kill_group(process)
        return Ended(process.returncode, _read(out), _read(err), stopped)


def interpreter() -> Path:
    """The Python that runs programs: this one, without its virtual environment."""
    return Path(os.path.realpath(sys.executable))


@cache
def _bootstrap() -> str:
    return Path(__file__).with_name("bootstrap.py").read_text(encoding="utf-8")


def _file(content: str = "") -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content.encode("utf-8", "replace"))  # lone surrogates: a model may write them
    file.seek(0)
    return file


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(OUTPUT_BYTES).decode("utf-8", "replace")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
