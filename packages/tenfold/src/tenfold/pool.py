"""Trials side by side, each in a fresh process that dies with the command that started it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeAlias

from tenfold.context import TrialContext
from tenfold.locks import share_lock
from tenfold.trials import Trial

TrialFunction: TypeAlias = Callable[[Trial, TrialContext], Any]
TrialFunctions: TypeAlias = TrialFunction | Mapping[str, TrialFunction]
"""One for all trials, or one a stage."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Started:
    """A process took up the trial."""

    trial: Trial


@dataclass(frozen=True)
class Progressed:
    """The trial says how far it is."""

    trial: Trial
    done: float
    total: float


@dataclass(frozen=True)
class Finished:
    """The trial ended and its result is on the disk."""

    trial: Trial
    result: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The trial raised, or its process died; `details` is the traceback, if there is one."""

    trial: Trial
    error: str
    details: str


Event: TypeAlias = Started | Progressed | Finished | Failed


def run_in_processes(
    function: TrialFunctions, trials: Iterable[Trial], directory: Path, jobs: int, threads: int
) -> Generator[Event, None, None]:
    """Run every trial in one of `jobs` spawned processes of `threads` threads each; yield what happens.

    A failing trial does not stop the others. Closing the iterator, or an exception while it waits (Ctrl-C),
    kills the processes: all that matters is on the disk already.
    """
    waiting = deque(trials)
    workers: dict[Connection, _Worker] = {}
    pickled = pickle.dumps(function)
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                with _interrupts_held_back():  # so that no process is started and then forgotten
                    worker = _Worker(pickled, directory, threads)
                    workers[worker.connection] = worker
                yield worker.give(waiting.popleft())
            for connection in wait(list(workers)):
                worker = workers[connection]  # type: ignore[index]  # wait() returns what it was given
                yield (event := worker.read())
                if worker.is_dead:
                    del workers[worker.connection]  # a new process takes the next trial
                elif isinstance(event, Finished | Failed):
                    if waiting:
                        yield worker.give(waiting.popleft())
                    else:
                        del workers[worker.connection]
                        worker.dismiss()
    finally:
        for worker in workers.values():
            worker.kill()


class _Worker:
    """The parent's end of one process."""

    def __init__(self, pickled_function: bytes, directory: Path, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, child = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work, args=(child, pickled_function, directory), name="tenfold trial", daemon=False
        )
        self.trial: Trial | None = None
        self.is_dead = False
        with _thread_variables(threads):
            self.process.start()
        child.close()

    def give(self, trial: Trial) -> Started:
        self.trial = trial
        with contextlib.suppress(BrokenPipeError):  # the process died; read() will say so
            self.connection.send(trial)
        return Started(trial)

    def read(self) -> Event:
        assert self.trial is not None
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.is_dead = True
            return Failed(self.trial, _how_it_died(self.process.exitcode), "")

    def dismiss(self) -> None:
        """Let the process end by itself; one that a library keeps from ending is killed."""
        self.connection.close()
        self.process.join(timeout=10)
        self.process.kill()
        self.process.join()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _how_it_died(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {exit_code}"


@contextlib.contextmanager
def _thread_variables(threads: int) -> Iterator[None]:
    """Numerical libraries read these when they are loaded, so they must be set before the process starts."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits until the end; a process started inside does not see it before it can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # The first spawned process would start the tracker, and starting that lets the signal through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection, pickled_function: bytes, directory: Path) -> None:
    """The child: take trials until the parent has no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_die_with_parent, name="die with parent", daemon=True).start()
    with share_lock(directory):
        if not multiprocessing.parent_process().is_alive():  # type: ignore[union-attr]  # a child has one
            os._exit(1)  # killed while we were starting; another command may own the folder by now
        _write_output_to(directory / "log.txt")
        for trial in _received(connection):
            _send(connection, _outcome(trial, pickled_function, directory, connection))


def _outcome(trial: Trial, pickled_function: bytes, directory: Path, connection: Connection) -> Event:
    def report(done: float, total: float) -> None:
        _send(connection, Progressed(trial, done, total))

    try:
        function = function_of(pickle.loads(pickled_function), trial)  # noqa: S301  # from the parent process
        context = TrialContext(trial, directory, report)
        return Finished(trial, context.finish(function(trial, context)))
    except Exception as error:
        message = "".join(traceback.format_exception_only(error)).strip()
        return Failed(trial, message, traceback.format_exc())


def function_of(functions: TrialFunctions, trial: Trial) -> TrialFunction:
    """Return the function that runs this trial. Raises `KeyError` for a stage that has none."""
    return functions[trial.stage] if isinstance(functions, Mapping) else functions


def _send(connection: Connection, event: Event) -> None:
    try:
        connection.send(event)
    except OSError:
        os._exit(1)  # the parent is gone


def _received(connection: Connection) -> Iterator[Trial]:
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            yield connection.recv()


def _write_output_to(log: Path) -> None:
    """What libraries print goes to the log, not over the progress bar."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _die_with_parent() -> None:
    """End this process at once when the parent is gone, even if it was killed with no chance to say so."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
