"""Run the experiments of papers one after the other, tell how long the rest will take, and build the page.

    python tools/reproduce.py --scale quick lpa fope     # make reproduce: all papers

A paper that fails does not stop the others; the exit code is then 1. Repeated, it goes on where it was.
The time left is what the published runs took, times how much slower this machine has been so far.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tenfold.results import RunFolder

ROOT = Path(__file__).resolve().parent.parent
TENFOLD = Path(sys.executable).with_name("tenfold")
INTERRUPTED = 130


def main() -> int:
    """Run the papers named on the command line; 0 if all succeeded, 1 if one failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run experiments one after the other and build the page.")
    parser.add_argument("papers", nargs="+")
    parser.add_argument("--scale", default="quick")
    arguments = parser.parse_args()
    published = ROOT / "docs" / "results"
    expected = {paper: published_seconds(published / paper / arguments.scale) for paper in arguments.papers}
    done: dict[str, float] = {}
    failed: list[str] = []
    for number, paper in enumerate(arguments.papers, 1):
        left = time_left(expected, done)
        print(f"== {paper}: {number} of {len(arguments.papers)}{f'; {left}' if left else ''}", flush=True)
        start = time.monotonic()
        code = subprocess.call([TENFOLD, "run", paper, "--scale", arguments.scale, "--resume"])
        if code == INTERRUPTED:
            return code
        if code:
            failed.append(paper)
        done[paper] = time.monotonic() - start
    report = subprocess.call([TENFOLD, "report", "--open"])
    print("\n".join(f"{paper:<14} {seconds / 60:5.1f} min" for paper, seconds in done.items()))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or report else 0


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


def time_left(expected: dict[str, float | None], done: dict[str, float]) -> str:
    """Say about how long the papers that are not `done` will take; nothing where that is unknown.

    `done` has the seconds that the others took here. A paper that took far less than expected had been run
    before, and says nothing about the machine.
    """
    rest = [expected[paper] for paper in expected if paper not in done]
    known = [seconds for seconds in rest if seconds is not None]
    if not known:
        return ""
    ran = {paper: wanted for paper, s in done.items() if (wanted := expected[paper]) and s > wanted / 4}
    slower = sum(done[paper] for paper in ran) / sum(ran.values()) if ran else 1.0
    more = "more than " if len(known) < len(rest) else "about "
    return f"{more}{max(1, round(slower * sum(known) / 60))} min left"


def tell(message: str) -> None:
    """Show that a published file is damaged: it costs only an estimate here."""
    print(message, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
