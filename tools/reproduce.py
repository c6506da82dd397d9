"""Run the experiments of papers side by side, tell how long the rest will take, and build the page.

    python tools/reproduce.py --scale quick lpa fope     # make reproduce: all papers

The processors are shared out among lanes, and each lane runs paper after paper, the longest first. A paper by
itself leaves processors idle while it waits for its last trial, trains its only model or draws its figures.
Where a process cannot be bound to processors (macOS, Windows) there is one lane.

A paper that fails does not stop the others; the exit code is then 1. Repeated, it goes on where it was.
The time left is what the published runs took, times how much slower this machine has been so far.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tenfold.environment import usable_cores
from tenfold.results import RunFolder

ROOT = Path(__file__).resolve().parent.parent
TENFOLD = Path(sys.executable).with_name("tenfold")
INTERRUPTED = 130


def main() -> int:
    """Run the papers named on the command line; 0 if all succeeded, 1 if one failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run experiments side by side and build the page.")
    parser.add_argument("papers", nargs="+")
    parser.add_argument("--scale", default="quick")
    arguments = parser.parse_args()
    published = ROOT / "docs" / "results"
    expected = {paper: published_seconds(published / paper / arguments.scale) for paper in arguments.papers}
    shares = shared_out(len(expected))
    board = Board(expected, lanes=len(shares))
    run_all(board, shares, arguments.scale)
    if board.interrupted:
        return INTERRUPTED
    report = subprocess.call([TENFOLD, "report", "--open"])
    print("\n".join(f"{paper:<14} {seconds / 60:5.1f} min" for paper, seconds in board.took.items()))
    if board.failed:
        print(f"failed: {', '.join(board.failed)}", file=sys.stderr)
    return 1 if board.failed or report else 0


def shared_out(papers: int) -> list[set[int]]:
    """The processors of each lane: two or more, but one where there are two or three; empty is unbound."""
    if not hasattr(os, "sched_setaffinity"):
        return [set()]
    cores = sorted(os.sched_getaffinity(0))
    lanes = min(papers, len(cores), max(2, len(cores) // 2))
    bounds = [lane * len(cores) // lanes for lane in range(lanes + 1)]
    return [set(cores[first:last]) for first, last in itertools.pairwise(bounds)]


@dataclass
class Board:
    """What waits, runs and is done; lanes take their next paper from it. Seconds, by paper."""

    expected: dict[str, float | None]
    lanes: int = 1
    took: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> str | None:
        """The next paper, now running: of those that wait the one expected to take longest, or unknown."""
        with self._lock:
            waiting = [paper for paper in self.expected if paper not in self.began]
            if self.interrupted or not waiting:
                return None
            paper = max(waiting, key=lambda paper: self.expected[paper] or float("inf"))
            self.began[paper] = time.monotonic()
            return paper

    def end(self, paper: str, code: int) -> None:
        """Note how a paper ended."""
        with self._lock:
            self.took[paper] = time.monotonic() - self.began[paper]
            if code == INTERRUPTED:
                self.interrupted = True
            elif code:
                self.failed.append(paper)

    def time_left(self) -> str:
        """Say about how long the rest will take; nothing where that is unknown.

        Before a paper is done, it is taken to need as many times the published time as there are lanes. One
        that took far less than expected had been run before, and says nothing about the machine.
        """
        with self._lock:
            expected, took, now = self.expected, self.took, time.monotonic()
            ran = {paper: s for paper, s in took.items() if s > (expected[paper] or float("inf")) / 4}
            pace = sum(ran.values()) / sum(expected[paper] or 0 for paper in ran) if ran else self.lanes
            rest = {
                paper: max(0.0, pace * seconds - (now - self.began.get(paper, now)))
                for paper, seconds in expected.items()
                if paper not in took and seconds is not None
            }
            unknown = any(seconds is None for paper, seconds in expected.items() if paper not in took)
        if not rest:
            return ""
        seconds = max(sum(rest.values()) / self.lanes, *rest.values())
        return f"{'more than' if unknown else 'about'} {max(1, round(seconds / 60))} min left"

    def __str__(self) -> str:
        running = [paper for paper in self.began if paper not in self.took]
        return f"{len(self.took)} of {len(self.expected)} papers done, running {', '.join(running)}"


def run_all(board: Board, shares: Iterable[set[int]], scale: str) -> None:
    """Run every paper of the board in lanes; on a terminal with a bar below what they say."""
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    bar = Progress(*columns, console=console, disable=not sys.stdout.isatty(), transient=True)
    shown = bar.add_task("", total=len(board.expected), left="")
    shares = list(shares)
    with bar, ThreadPoolExecutor(len(shares)) as pool:
        lanes: set[Future[None]] = {pool.submit(run_lane, board, cores, scale, console) for cores in shares}
        try:
            while lanes:
                bar.update(shown, completed=len(board.took), description=str(board), left=board.time_left())
                done, lanes = wait(lanes, timeout=1)
                for lane in done:
                    lane.result()
        except KeyboardInterrupt:  # the papers have got it as well, and end
            board.interrupted = True


def run_lane(board: Board, cores: set[int], scale: str, console: Console) -> None:
    """Run paper after paper on these processors, its name before each line that it says."""
    if cores and len(cores) < usable_cores():
        os.sched_setaffinity(0, cores)  # of this thread, and so of what it starts
    while paper := board.take():
        left = board.time_left()
        number, all_papers = len(board.began), len(board.expected)
        say(console, f"== {paper}: {number} of {all_papers}{f'; {left}' if left else ''}")
        prefix = f"{paper} | "
        with subprocess.Popen(
            [TENFOLD, "run", paper, "--scale", scale, "--resume"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=os.environ
            | {
                "PYTHONUNBUFFERED": "1",
                "PYTHONIOENCODING": "utf-8",
                "COLUMNS": str(shutil.get_terminal_size().columns - len(prefix)),
            },
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                say(console, prefix + line.rstrip("\n"))
        board.end(paper, process.returncode)


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def published_seconds(folder: Path) -> float | None:
    """Return how long the published run in `folder` took; None where that is not known.

    One that ended within a minute was resumed when its trials had been made, and does not say.
    """
    run = RunFolder(folder)
    claims, environment = run.read_claims(tell), run.read_environment(tell)
    if claims is None or environment is None:
        return None
    seconds = (claims.finished - environment.started).total_seconds()
    return seconds if seconds > 60 else None


def tell(message: str) -> None:
    """Show that a published file is damaged: it costs only an estimate here."""
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
