"""Processes that judge, each under a hard limit of time: one that hangs is killed and another one started.

They are started by `subprocess`, not `multiprocessing`: that would run the user's script again in each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Pipe, wait
from typing import Any

from implicit_prime.errors import PrimeError
from implicit_prime.verifiers.base import VerifierResult

START_S = 600
"""A worker imports sympy first, which takes seconds, and on a busy machine far more."""


class Worker:
    """One process. `row` is what it works on, or None; `deadline` is when it is given up."""

    def __init__(self, extract: str, timeout_s: float) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-P"]  # a file sympy.py in the working folder is not meant
            command += ["-m", "implicit_prime.verifiers.worker", str(fd), extract, str(timeout_s)]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(fd,),
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        self.timeout_s = timeout_s
        self.ready = False
        self.row: int | None = None
        self.deadline = time.monotonic() + START_S

    def give(self, row: int, completion: str, reference: str) -> None:
        """Hand over a row; a worker that has died is found out when its reply is awaited."""
        self.row, self.deadline = row, time.monotonic() + self.timeout_s
        try:
            self.connection.send_bytes(json.dumps([completion, reference]).encode())
        except OSError:
            return

    def kill(self) -> int:
        """End it; what it was: its exit code, or minus the signal that ended it."""
        self.process.kill()
        self.connection.close()
        return self.process.wait()


class WorkerPool:
    """At most `count` workers, started when there is work for them and kept. Calls take turns."""

    def __init__(self, count: int, extract: str, timeout_s: float) -> None:
        self._count = count
        self._settings = (extract, timeout_s)
        self._workers: list[Worker] = []
        self._turn = threading.Lock()
        weakref.finalize(self, _kill_all, self._workers)

    def judge(self, rows: Sequence[tuple[str, str]]) -> list[VerifierResult]:
        """A result for each (completion, reference).

        Raises `PrimeError` if a worker does not start.
        """
        if not rows:
            return []
        with self._turn:
            results: list[VerifierResult | None] = [None] * len(rows)
            waiting = deque(range(len(rows)))
            try:
                while waiting or any(worker.row is not None for worker in self._workers):
                    self._hand_out(waiting, rows)
                    self._collect(results)
            except BaseException:  # no reply of this call may meet the next one
                _kill_all(self._workers)
                raise
            return [result for result in results if result is not None]

    def close(self) -> None:
        """End the workers; another call starts new ones."""
        with self._turn:
            _kill_all(self._workers)

    def _hand_out(self, waiting: deque[int], rows: Sequence[tuple[str, str]]) -> None:
        starting = sum(not worker.ready for worker in self._workers)
        for _ in range(min(self._count - len(self._workers), len(waiting) - starting)):
            self._workers.append(Worker(*self._settings))
        for worker in self._workers:
            if waiting and worker.ready and worker.row is None:
                row = waiting.popleft()
                worker.give(row, *rows[row])

    def _collect(self, results: list[VerifierResult | None]) -> None:
        """Wait until something happens: replies, deaths, or a deadline."""
        busy = [worker for worker in self._workers if worker.row is not None or not worker.ready]
        patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        speaking = wait([worker.connection for worker in busy], patience)
        for worker in busy:
            if worker.connection in speaking:
                self._read(worker, results)
            elif time.monotonic() >= worker.deadline:
                self._give_up(worker, results)

    def _read(self, worker: Worker, results: list[VerifierResult | None]) -> None:
        try:
            reply: Any = json.loads(worker.connection.recv_bytes())
        except (EOFError, OSError):
            row, code = worker.row, self._end(worker)
            if row is None:
                raise PrimeError(
                    f"a worker for mathematics ended with {code} as it started; see above"
                ) from None
            results[row] = VerifierResult(0.0, "error", f"the worker that judged it ended with {code}")
            return
        if worker.ready and worker.row is not None:
            results[worker.row] = VerifierResult(*reply)
            worker.row = None
        worker.ready = True

    def _give_up(self, worker: Worker, results: list[VerifierResult | None]) -> None:
        row, _ = worker.row, self._end(worker)
        if row is None:
            raise PrimeError(
                f"a worker for mathematics did not start in {START_S} s; is the machine too busy?"
            )
        results[row] = VerifierResult(0.0, "timeout", f"judging took more than {worker.timeout_s} s")

    def _end(self, worker: Worker) -> int:
        self._workers.remove(worker)
        return worker.kill()


def _kill_all(workers: list[Worker]) -> None:
    while workers:
        workers.pop().kill()
