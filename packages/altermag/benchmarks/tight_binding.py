"""Bands of bilayer PtBr3 with one orbital an atom, two spins, beside PythTB.

    python benchmarks/tight_binding.py [--k 2000] [--many 10000] [--repeats 5]

The same model exported to PythTB, the same k points, one thread, one process, in turn; the ratio is (time of
PythTB / ours), the median of the pairs. Goal: 10,000 k in 3 s.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from altermag import prototypes, stack, tb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, default=2000, help="k points where PythTB takes part")
    parser.add_argument("--many", type=int, default=10_000, help="k points for the goal")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    bilayer = stack(prototypes.ptbr3(), "mirror", (1 / 3, 2 / 3), distance=6.35)
    model = tb.from_bilayer(bilayer)
    peers = [tb.to_pythtb(model, spin) for spin in (1, -1)]
    solve = "solve_ham" if hasattr(peers[0], "solve_ham") else "solve_all"

    def theirs(k: np.ndarray) -> np.ndarray:
        bands = np.array([getattr(peer, solve)(k) for peer in peers])
        return bands if solve == "solve_ham" else bands.transpose(0, 2, 1)

    k = np.random.default_rng(0).random((options.k, 2))
    apart = np.abs(model.bands(k) - theirs(k)).max()
    pairs = [(seconds(lambda: theirs(k)), seconds(lambda: model.bands(k))) for _ in range(options.repeats)]
    peer, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"{model}, {options.k} k; bands apart by {apart:.1e} eV at most\n")
    print(f"| PythTB (s) | ours (s) | ratio |\n|---|---|---|\n| {peer:.2f} | {ours:.3f} | {ratio:.1f} |\n")
    built = statistics.median(seconds(lambda: tb.from_bilayer(bilayer)) for _ in range(20))
    print(f"building the model: {1e3 * built:.1f} ms")
    many = np.random.default_rng(1).random((options.many, 2))
    print(f"{options.many} k, both spins: {seconds(lambda: model.bands(many)):.2f} s")


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
