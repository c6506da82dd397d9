"""Cox regression of every protein of a cohort, beside lifelines one protein after the other.

    python benchmarks/cox.py [--proteins 5000] [--patients 110] [--peer 20] [--repeats 5]

One process, one thread, processor time, median of the repeats. lifelines fits the first `--peer` proteins;
its time is that times proteins / peer, its coefficients are as far off as its default precision lets them.
"ties": times rounded to twelve; "missing": a fifth of the values is missing too. R's survival takes about
2.7 ms a fit (in the specification, from another machine of two cores). Goals: at least 300 times as fast as
lifelines and 5 times as fast as R.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from proteus_omics.stats import cox_fit

R_SECONDS_A_FIT = 0.0027


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proteins", type=int, default=5000)
    parser.add_argument("--patients", type=int, default=110)
    parser.add_argument("--peer", type=int, default=20, help="proteins that lifelines fits")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(25, 1, (options.patients, options.proteins))
    plain = rng.exponential(size=options.patients)
    event = rng.random(options.patients) < 0.5
    ties = np.ceil(plain / plain.max() * 12)
    gaps = np.where(rng.random(x.shape) < 0.2, np.nan, x)
    print(f"{options.proteins} proteins, {options.patients} patients, {event.sum()} events\n")
    print("| cohort | ours (s) | lifelines (s) | lifelines / ours | R / ours | coefficients apart |")
    print("|---|---|---|---|---|---|")
    for name, values, times in (("plain", x, plain), ("ties", x, ties), ("missing", gaps, ties)):
        first = values[:, : options.peer]
        mine = median_cpu(partial(cox_fit, values, times, event), options.repeats)
        peer = median_cpu(partial(lifelines, first, times, event), 1) * options.proteins / options.peer
        apart = np.abs(cox_fit(first, times, event).coef[:, 0] - lifelines(first, times, event)).max()
        r = R_SECONDS_A_FIT * options.proteins / mine
        print(
            f"| {name} | {mine:.3f} | {peer:.0f} | {peer / mine:,.0f} | {r:.0f} | {apart:.0e} |", flush=True
        )


def lifelines(x: np.ndarray, times: np.ndarray, event: np.ndarray) -> list[float]:
    from lifelines import CoxPHFitter

    coef = []
    for column in x.T:
        frame = pd.DataFrame({"x": column, "time": times, "event": event}).dropna()
        coef.append(float(CoxPHFitter().fit(frame, "time", "event").params_["x"]))
    return coef


def median_cpu(call: Callable[[], object], repeats: int) -> float:
    """Processor time of a call, the median of the repeats."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
