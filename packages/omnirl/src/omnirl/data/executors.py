"""Where jobs run: in this process, in several, or on a Ray cluster. Results come in the order of the jobs.

Anything with such a `map` will do (`concurrent.futures.Executor` has one, and so have those of MPI and Dask).
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol, TypeVar

from omnirl.errors import MissingExtraError, OmniRLError

Job = TypeVar("Job")
Result = TypeVar("Result")

# Jobs that wait for each worker: enough to keep it busy, few enough that their tasks fit into memory.
_WAITING = 2


class Executor(Protocol):
    """What `synthesize` needs of an executor."""

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job], /) -> Iterable[Result]:
        """The results of the jobs, in their order."""
        ...


def executor_of(workers: int | Executor) -> Executor:
    """The executor of a number of processes, or `workers` itself.

    Raises:
        OmniRLError: for a number below 1, or an object without `map`.
    """
    if isinstance(workers, int):
        if workers < 1:
            raise OmniRLError(f"workers is {workers}; it must be at least 1, or an executor")
        return Inline() if workers == 1 else Processes(workers)
    if not hasattr(workers, "map"):
        raise OmniRLError(f"workers must be a number or have `map`; {type(workers).__name__} has none")
    return workers


class Inline:
    """One job after the other, in this process."""

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job], /) -> Iterator[Result]:
        """The results, each made when it is asked for."""
        return (function(job) for job in jobs)


class Processes:
    """`count` processes of this machine. Like all that spawns, it needs `if __name__ == "__main__":` in a
    script.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job], /) -> Iterator[Result]:
        """The results in order; a few jobs a process are sent ahead."""
        # Spawned, not forked: torch's threads may be alive in this process.
        pool = ProcessPoolExecutor(self.count, multiprocessing.get_context("spawn"))
        try:
            yield from send_ahead(
                jobs, _WAITING * self.count, lambda j: pool.submit(function, j), lambda f: f.result()
            )
        finally:
            pool.shutdown(cancel_futures=True)


class RayExecutor:
    """A Ray cluster, or a local one that is started if there is none. `num_cpus` is what each job takes.

    Shards that jobs write must lie on a file system that all nodes share.
    """

    def __init__(self, num_cpus: float = 1.0) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("RayExecutor needs Ray: pip install 'omnirl-icrl[scale]'") from error
        self._ray, self._num_cpus = ray, num_cpus

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job], /) -> Iterator[Result]:
        """The results in order; a few jobs a processor are sent ahead."""
        ray = self._ray
        if not ray.is_initialized():
            ray.init(include_dashboard=False)
        remote = ray.remote(num_cpus=self._num_cpus)(function)
        slots = max(1, int(ray.cluster_resources().get("CPU", 1) / self._num_cpus))
        return send_ahead(jobs, _WAITING * slots, remote.remote, ray.get)


def send_ahead(
    jobs: Iterable[Job], waiting: int, send: Callable[[Job], Any], fetch: Callable[[Any], Result]
) -> Iterator[Result]:
    """Send at most `waiting` jobs before the first result is fetched, and one more for each that is."""
    sent: deque[Any] = deque()
    for job in jobs:
        if len(sent) == waiting:
            yield fetch(sent.popleft())
        sent.append(send(job))
    while sent:
        yield fetch(sent.popleft())
