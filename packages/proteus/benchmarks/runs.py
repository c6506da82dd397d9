"""Whole runs of the rules: the plasma cohort, and cells in their number and in 200,000.

    python benchmarks/runs.py [--only cohort cells many] [--many 200000]

Each run is a process of its own from reading to report, one thread; "clock" is its time from start to end,
"memory" the most that it held (imports in both). "cohort" takes the gene sets where $TENFOLD_DATA has them.
"many" are the cells of the data set drawn with replacement, with noise on each value, enough that the copies
of a cell do not make an island of their own in the graph of neighbours. A data set that is not at hand
leaves its row out. Goals: cohort 45 s, 1.5 GB and a report of at most 10 MB; cells 60 s; 200,000 cells 10
minutes.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData

GOALS = {"cohort": "45 s, 1.5 GB, 10 MB", "cells": "60 s", "many": "600 s"}
NOISE = 0.3
"""Standard deviation of the logarithm of the factor by which a value of a copy differs."""
KIB = 1024 if sys.platform.startswith("linux") else 1
"""Bytes in the unit of `ru_maxrss`: kibibytes on Linux, bytes on macOS."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=GOALS, default=list(GOALS))
    parser.add_argument("--many", type=int, default=200_000, help="cells of the largest run")
    parser.add_argument("--child", choices=GOALS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measured(options.child, options.many)))
        return
    print("| run | rows x columns | clock (s) | memory (GB) | report (MB) | hypotheses | goal |")
    print("|---|---|---|---|---|---|---|")
    for name in options.only:
        start = time.perf_counter()
        command = [sys.executable, __file__, "--child", name, "--many", str(options.many)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - start
        found = json.loads(done.stdout.splitlines()[-1])
        if found is None:
            print(f"{name}: its data set is not at hand", flush=True)
            continue
        cells = [name, found["shape"], f"{seconds:.0f}", f"{found['memory'] / 1e9:.2f}"]
        cells += [f"{found['report'] / 1e6:.1f}", str(found["hypotheses"]), GOALS[name]]
        print("| " + " | ".join(cells) + " |", flush=True)


def measured(name: str, many: int) -> dict[str, object] | None:
    """One run in this process: its size, the memory that it took, its report; None without the data."""
    import proteus_omics as po
    from proteus_omics import datasets

    if name == "cohort":
        data = datasets.nafld()
        design = po.Design(condition="disease", reference="healthy")
    elif datasets.CYTOF.path() is None:
        return None
    else:
        data = datasets.cytof() if name == "cells" else more(datasets.cytof(), many)
        design = po.Design(condition="condition", reference="Ref", sample="sample_id", subject="patient_id")
    knowledge = datasets.KNOWLEDGE.path() if name == "cohort" else None
    with tempfile.TemporaryDirectory() as folder:
        run = po.run(data, design=design, out=Path(folder) / "run", knowledge=knowledge)
        return {
            "shape": f"{data.n_obs:,} x {data.n_vars}",
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB,
            "report": Path(run.report).stat().st_size,
            "hypotheses": len(run.hypotheses),
        }


def more(cells: AnnData, n: int) -> AnnData:
    """`n` cells drawn from these, each sample keeping its share, none exactly like another."""
    import numpy as np

    rng = np.random.default_rng(0)
    drawn = cells[rng.integers(0, cells.n_obs, n)].copy()
    drawn.obs_names = [f"cell{number}" for number in range(n)]
    drawn.X = np.asarray(drawn.X) * np.exp(NOISE * rng.standard_normal(drawn.shape))
    return drawn


if __name__ == "__main__":
    main()
