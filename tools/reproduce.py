"""Run the experiments of papers side by side, tell how long the rest will take, and build the page.

    python tools/reproduce.py --scale quick lpa fope     # make reproduce: all papers

The processors are shared out among lanes, and each lane runs paper after paper, the longest first. A paper by
itself leaves processors idle while it waits for its last trial, trains its only model or draws its figures.
Where a process cannot be bound to processors (macOS, Windows) there is one lane. Papers that time something
with no trial beside it (`timed` under [tool.tenfold] in their pyproject.toml) have the machine to themselves
at the end.

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
import tomllib
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

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
    papers, published = arguments.papers, ROOT / "docs" / "results"
    expected = {paper: published_seconds(published / paper / arguments.scale) for paper in papers}
    timed = {paper for paper in papers if is_timed(ROOT / "packages" / paper / "pyproject.toml")}
    shares = shared_out(len(expected) - len(timed))
    board = Board(expected, timed, lanes=len(shares))
    run_all(board, set(papers) - timed, shares, arguments.scale)
    run_all(board, timed, [set()], arguments.scale)
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
    lanes = max(1, min(papers, len(cores), max(2, len(cores) // 2)))
    bounds = [lane * len(cores) // lanes for lane in range(lanes + 1)]
    return [set(cores[first:last]) for first, last in itertools.pairwise(bounds)]


def is_timed(pyproject: Path) -> bool:
    """Whether a paper says that it times something with no trial beside it."""
    settings = tomllib.loads(pyproject.read_text(encoding="utf-8")) if pyproject.exists() else {}
    return bool(settings.get("tool", {}).get("tenfold", {}).get("timed"))


@dataclass
class Board:
    """What waits, runs and is done; lanes take their next paper from it. Seconds, by paper."""

    expected: dict[str, float | None]
    alone: Collection[str] = ()
    lanes: int = 1
    took: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    interrupted: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, papers: Collection[str]) -> str | None:
        """The next of these, now running: of those that wait the one expected to take longest, or unknown."""
        with self._lock:
            waiting = [paper for paper in self.expected if paper in papers and paper not in self.began]
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

        A paper in one of n lanes is taken to need n times as long as alone. One that took far less than
        expected had been run before, and says nothing about the machine.
        """
        with self._lock:
            known = {paper: seconds for paper, seconds in self.expected.items() if seconds is not None}
            slower = {paper: 1 if paper in self.alone else self.lanes for paper in known}
            ran = [paper for paper in known if self.took.get(paper, 0) > known[paper] * slower[paper] / 4]
            here = sum(self.took[paper] / slower[paper] for paper in ran)
            pace = here / sum(known[paper] for paper in ran) if ran else 1.0
            now = time.monotonic()
            rest = {
                paper: max(0.0, pace * slower[paper] * known[paper] - (now - self.began.get(paper, now)))
                for paper in known.keys() - self.took.keys()
            }
            unknown = self.expected.keys() - self.took.keys() - known.keys()
        if not rest:
            return ""
        beside = [seconds for paper, seconds in rest.items() if paper not in self.alone]
        alone = sum(rest.values()) - sum(beside)
        seconds = max(sum(beside) / self.lanes, *beside, 0.0) + alone
        return f"{'more than' if unknown else 'about'} {max(1, round(seconds / 60))} min left"

    def __str__(self) -> str:
        running = [paper for paper in self.began if paper not in self.took]
        return f"{len(self.took)} of {len(self.expected)} papers done, running {', '.join(running)}"


def run_all(board: Board, papers: Collection[str], shares: Sequence[set[int]], scale: str) -> None:
    """Run these papers of the board in lanes; on a terminal with a bar below what they say."""
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    bar = Progress(*columns, console=console, disable=not sys.stdout.isatty(), transient=True)
    shown = bar.add_task("", total=len(board.expected), left="")
    with bar, ThreadPoolExecutor(len(shares)) as pool:
        lanes: set[Future[None]] = {
            pool.submit(run_lane, board, papers, cores, scale, console) for cores in shares
        }
        try:
            while lanes:
                bar.update(shown, completed=len(board.took), description=str(board), left=board.time_left())
                done, lanes = wait(lanes, timeout=1)
                for lane in done:
                    lane.result()
        except KeyboardInterrupt:  # the papers have got it as well, and end
            board.interrupted = True


def run_lane(board: Board, papers: Collection[str], cores: set[int], scale: str, console: Console) -> None:
    """Run paper after paper of these on these processors, its name before each line that it says."""
    if cores:
        os.sched_setaffinity(0, cores)  # of this thread, and so of what it starts
    while paper := board.take(papers):
        left = board.time_left()
        number, all_papers = list(board.began).index(paper) + 1, len(board.expected)
        say(console, f"== {paper}: {number} of {all_papers}{f'; {left}' if left else ''}")
        prefix = f"{paper} | "
        width = shutil.get_terminal_size().columns - len(prefix)
        settings = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "COLUMNS": str(width)}
        with subprocess.Popen(
            [TENFOLD, "run", paper, "--scale", scale, "--resume"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=os.environ | settings,
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
