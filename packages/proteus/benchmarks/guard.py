"""The guard on a thousand statements of a table of ten thousand rows.

    python benchmarks/guard.py [--statements 1000] [--rows 10000] [--repeats 5]

One process, one thread, processor time, median of the repeats; "index" is what is done once for a table. Half
of the statements are true and half have their direction turned, so that the guard also has to say what is
wrong. There is no peer that checks sentences. Goal: at most 2 s.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time

import numpy as np
import pandas as pd

from proteus_omics.hypotheses.guard import Guard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--statements", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    table = made(options.rows)
    texts = statements(table, options.statements)
    indexing, checking = [], []
    for _ in range(options.repeats):
        start = time.process_time()
        guard = Guard({"de": table})
        middle = time.process_time()
        verdicts = [guard.check(text).status for text in texts]
        indexing.append(middle - start)
        checking.append(time.process_time() - middle)
    index, check = statistics.median(indexing), statistics.median(checking)
    print("| statements | rows | verified | contradicted | index (s) | check (s) | together (s) | goal |")
    print("|---|---|---|---|---|---|---|---|")
    counts = f"{verdicts.count('verified'):,} | {verdicts.count('contradicted'):,}"
    times = f"{index:.2f} | {check:.2f} | {index + check:.2f}"
    print(f"| {len(texts):,} | {len(table):,} | {counts} | {times} | 2 s |")


def made(rows: int) -> pd.DataFrame:
    """A table of differences, each of them significant."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "protein": [f"P{number:05d}" for number in range(rows)],
            "gene": [f"GN{number}" for number in range(rows)],
            "contrast": "b_vs_a",
            "log2fc": rng.choice([-1, 1], rows) * rng.uniform(0.1, 3, rows),
            "q_value": rng.uniform(0, 0.04, rows),
        }
    )


def statements(table: pd.DataFrame, n: int) -> list[str]:
    """The first `n` rows told; every second one with the wrong direction."""
    texts = []
    for number, row in enumerate(table.head(n).itertuples()):
        up = (row.log2fc > 0) != bool(number % 2)
        texts.append(
            f"{row.gene} is {'increased' if up else 'decreased'} in b compared with a "
            f"(log2 fold change {row.log2fc:.2f}, q = {row.q_value:.2g})."
        )
    return texts


if __name__ == "__main__":
    main()
