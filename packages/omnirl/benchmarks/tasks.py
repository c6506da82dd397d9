"""Sampling and solving of AnyMDP tasks beside xenoverse, in one process and in turn.

    python benchmarks/tasks.py [--sizes 8 16 32 64 128] [--repeats 9] [--seconds 2]

Sampling: milliseconds a task; a turn of each takes about `--seconds` of the processor, ours also the time it
needs to start. A single task's time scatters (rejection), so the ratio is of the means over all turns, and
the smallest and largest turn are shown. Oracle: the optimal values for γ = 0.994 of one and the same batch of
tasks; ours is exact, xenoverse's stops at a change of 1e-4, and the largest difference of the two is shown.
Times are the processor's, so that other work on the machine is not counted; the wall's follow in brackets.
Goals of the ratios: 200 for sampling, 500 for the oracle.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from _peer import load_peer

import omnirl
from omnirl.tasks.xenoverse import task_to_xenoverse

GAMMA = 0.994
OUR_TASKS = {8: 512, 16: 1024, 32: 512, 64: 128, 128: 32}
"""Tasks in a turn of ours: a training pool is larger, and then no slower a task."""

POOL = 4096
"""Tasks of 8 states that a turn of our oracle solves: 128 take half a millisecond, too little to time."""

Spent = tuple[float, float]


def timed(call: Callable[[], Any]) -> tuple[Spent, Any]:
    """Return the (processor, wall) seconds of a call, and its result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    return (time.process_time() - processor, time.perf_counter() - wall), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(OUR_TASKS), choices=list(OUR_TASKS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of the peer's sampler in a turn")
    arguments = parser.parse_args()
    peer = load_peer("tasks.py")
    columns = ("ours", "xenoverse", "ratio") if peer else ("ours",)
    show(
        f"\nsampling a task, ms ({arguments.repeats} turns each)",
        columns,
        (sample_row(size, arguments.repeats, arguments.seconds, peer) for size in arguments.sizes),
    )
    show(
        f"\noracle of a task, γ = {GAMMA}, ms",
        (*columns, "largest difference in Q") if peer else columns,
        (oracle_row(size, arguments.repeats, peer) for size in arguments.sizes),
    )


def sample_row(size: int, repeats: int, seconds: float, peer: Any) -> list[str]:
    """Time both samplers in turn; the first task of each is not counted (compilation)."""
    omnirl.sample_tasks(8, size, seed=0)
    seeds = itertools.count(1)
    if peer:
        peer.AnyMDPTaskSampler(size, 5, seed=next(seeds))
    ours, theirs = [], []
    for _ in range(repeats):
        spent, _ = timed(lambda: omnirl.sample_tasks(OUR_TASKS[size], size, seed=next(seeds)))
        ours.append((spent, OUR_TASKS[size]))
        if peer:
            turn, count = (0.0, 0.0), 0
            while turn[0] < seconds:
                one, _ = timed(lambda: peer.AnyMDPTaskSampler(size, 5, seed=next(seeds)))
                turn, count = (turn[0] + one[0], turn[1] + one[1]), count + 1
            theirs.append((turn, count))
    return [str(size), *compared(ours, theirs)]


def oracle_row(size: int, repeats: int, peer: Any) -> list[str]:
    """Time both solvers on the same tasks in turn."""
    tasks = omnirl.sample_tasks(POOL if size == 8 else OUR_TASKS[size], size, seed=0)
    few = [peer_environment(peer, task) for task in tasks[: max(2, 64 // size)]] if peer else []
    exact = omnirl.solve(tasks, GAMMA)

    def solve_few() -> list[Any]:
        return [peer.AnyMDPSolverOpt(env, gamma=GAMMA) for env in few]

    solvers = solve_few()  # compiles
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append((timed(lambda: omnirl.solve(tasks, GAMMA))[0], len(tasks)))
        if peer:
            spent, solvers = timed(solve_few)
            theirs.append((spent, len(few)))
    cells = [str(size), *compared(ours, theirs)]
    if peer:
        worst = max(np.abs(found.value_matrix - exact[i]).max() for i, found in enumerate(solvers))
        cells.append(f"{worst:.3f}")
    return cells


def peer_environment(peer: Any, task: omnirl.Task) -> Any:
    """Return xenoverse's environment of one of our tasks."""
    env = peer.AnyMDPEnv(max_steps=task.max_steps)
    env.set_task(task_to_xenoverse(task))
    return env


def compared(ours: list[tuple[Spent, int]], theirs: list[tuple[Spent, int]]) -> list[str]:
    """Return the cells of ours, theirs and the ratio: means over all turns, processor (wall)."""
    cells = [milliseconds(turns) for turns in (ours, theirs) if turns]
    if theirs:
        ratio, wall = (mean(theirs, clock) / mean(ours, clock) for clock in (0, 1))
        cells.append(f"{ratio:.0f} ({wall:.0f})")
    return cells


def mean(turns: list[tuple[Spent, int]], clock: int) -> float:
    """Return the mean seconds a task."""
    return sum(spent[clock] for spent, _ in turns) / sum(count for _, count in turns)


def milliseconds(turns: list[tuple[Spent, int]]) -> str:
    each = [1e3 * spent[0] / count for spent, count in turns]
    middle = statistics.median(each)
    return (
        f"{1e3 * mean(turns, 0):.3g} ({1e3 * mean(turns, 1):.3g}), "
        f"turns {min(each):.3g} / {middle:.3g} / {max(each):.3g}"
    )


def show(title: str, columns: tuple[str, ...], rows: Iterable[list[str]]) -> None:
    """Print a table, each row as soon as it is measured."""
    print(f"{title}\n\n| {' | '.join(('states', *columns))} |\n|{'---|' * (1 + len(columns))}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
