"""Programs under resource limits alone, for those who have no sandbox and trust the programs."""

from __future__ import annotations

import tempfile
import warnings

from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prime.sandbox.base import SandboxResult, result_of
from implicit_prime.sandbox.processes import interpreter, rlimits, run_program


class RlimitSandbox:
    """NOT a sandbox: programs run with your rights, under limits of time, memory and file size.

    They can read and change your files, use the network, start any number of processes and leave some behind:
    the kernel counts a user's processes, not a program's.

    Raises `PrimeError` unless `allow_unsandboxed=True`, and then warns.
    """

    def __init__(self, memory_mb: int = 512, *, allow_unsandboxed: bool = False) -> None:
        if not allow_unsandboxed:
            raise PrimeError(
                "RlimitSandbox lets programs read your files and use the network (BubblewrapSandbox not). "
                "If you trust every program: RlimitSandbox(allow_unsandboxed=True)"
            )
        warnings.warn(
            "programs run WITHOUT A SANDBOX: they have your rights, your files and the network",
            PrimeWarning,
            stacklevel=2,
        )
        self.memory_mb = memory_mb

    def run(self, code: str, stdin: str = "", cpu_s: float = 2, wall_s: float = 20) -> SandboxResult:
        """See `Sandbox.run`; the working folder is an empty one that is deleted afterwards.

        Raises `PrimeError` for limits that are not positive.
        """
        limits = rlimits(self.memory_mb, cpu_s)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            ended = run_program([str(interpreter())], limits, code, stdin, wall_s, cwd=folder)
        return result_of(ended.returncode, ended.stdout, ended.stderr, stopped=ended.stopped)
