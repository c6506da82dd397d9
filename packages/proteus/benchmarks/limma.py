"""Moderated t-tests of tables with missing values, beside pylimma and beside R's limma.

    python benchmarks/limma.py [--repeats 5]

From matrix and design to t, p and B, all in one process, one thread, processor time. In each repeat ours runs
for some tenths of a second and pylimma once, so that both meet the same load; times are the medians of the
repeats, "pylimma / ours" the median of their ratios. pylimma (GPL-3, not a dependency) takes part where it is
installed. R's times are those of limma 3.54.1 (R 4.2.2) in the specification, from another machine of two
cores. "ubi" is the interactome of DEP (1,601 proteins, 12 samples, 177 patterns of missing values) where
$TENFOLD_DATA has it, else a simulation of that size with more patterns. "wide" has 10,000 proteins, 200
samples, 30 % missing and six terms: each protein has its own pattern. Both take limma's prior before 3.61, as
R's times do. Goals: ubi no slower than R and at least 200 times as fast as pylimma; wide at most half of R's.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from proteus_omics.stats import ModeratedFit, lm_fit

R_SECONDS = {"ubi": 0.2, "wide": 1.1}
UBI = Path(os.environ.get("TENFOLD_DATA", "")) / "proteus/golden/input_ubi_log2.csv.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(
        "| table | proteins x samples | patterns | ours (s) | R (s) | pylimma (s) | pylimma / ours | t off |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (y, x, contrast) in {"ubi": ubi(), "wide": wide()}.items():
        patterns = len(np.unique(y.isna().to_numpy(), axis=1).T)
        cells = [name, f"{y.shape[1]:,} x {len(y)}", f"{patterns:,}"]
        print("| " + " | ".join(cells + row(name, y, x, contrast, options.repeats)) + " |", flush=True)


def ubi() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    if UBI.is_file():
        y = pd.read_csv(UBI, index_col=0).T
        groups = [sample.split(".")[-1].split("_")[0] for sample in y.index]
    else:
        rng = np.random.default_rng(0)
        values = rng.normal(rng.uniform(22, 30, 1601), 0.4, (12, 1601))
        values[rng.random(values.shape) < 1 / (1 + np.exp(values - 23))] = np.nan
        y, groups = pd.DataFrame(values), list(np.repeat(["Ctrl", "Ubi1", "Ubi4", "Ubi6"], 3))
    x = pd.get_dummies(pd.Series(groups, index=y.index)).astype(float)
    return y, x, {"Ubi6": 1.0, "Ctrl": -1.0}


def wide() -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    rng = np.random.default_rng(0)
    y = rng.normal(25, 1, (200, 10_000))
    y[rng.random(y.shape) < 0.3] = np.nan
    x = pd.DataFrame(np.column_stack([np.ones(200), rng.normal(size=(200, 5))])).add_prefix("x")
    return pd.DataFrame(y), x, {"x1": 1.0}


def ours(y: pd.DataFrame, x: pd.DataFrame, contrast: dict[str, float]) -> ModeratedFit:
    fit = lm_fit(y, x).contrasts({"c": contrast}).ebayes(legacy=True)
    _ = fit.p_value, fit.b  # computed when first asked for
    return fit


def row(name: str, y: pd.DataFrame, x: pd.DataFrame, contrast: dict[str, float], repeats: int) -> list[str]:
    """Our time, R's, and of an installed pylimma its time, the ratio, and how far its t are off at most."""
    call = partial(ours, y, x, contrast)
    fit = call()
    calls = max(1, int(0.2 / cpu(call)))
    try:
        import pylimma
    except ImportError:
        alone = statistics.median(cpu(call) for _ in range(repeats * calls))
        return [f"{alone:.4f}", f"{R_SECONDS[name]}", "not installed", "", ""]
    weights = np.array([[contrast.get(term, 0.0)] for term in x])
    found = {}

    def peer() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            linear = pylimma.lm_fit(y.T.to_numpy(), x.to_numpy())
            found.update(pylimma.e_bayes(pylimma.contrasts_fit(linear, weights), legacy=True))

    pairs = [(statistics.median(cpu(call) for _ in range(calls)), cpu(peer)) for _ in range(repeats)]
    mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(slow / fast for fast, slow in pairs)
    apart = np.nanmax(np.abs(np.asarray(found["t"])[:, 0] - fit.t[:, 0]))
    return [f"{mine:.4f}", f"{R_SECONDS[name]}", f"{theirs:.1f}", f"{ratio:,.0f}", f"{apart:.0e}"]


def cpu(call: Callable[[], object]) -> float:
    """Processor time of a call in seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
