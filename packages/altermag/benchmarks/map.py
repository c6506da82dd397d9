"""The class of every stacking of a monolayer, beside a loop over built cells with spglib or amcheck.

    python benchmarks/map.py [--shifts 1000000] [--sample 200] [--repeats 5]

`kernel` classifies all shifts without building a cell. The loops build each bilayer of a sample (random
shifts and all special positions), and find its class by this package's `classify` of the built atoms with
spglib's magnetic symmetry (of a `Bilayer` it would take the kernel's own), or by amcheck with spglib's
symmetry; a ratio is (their time a stacking / the kernel's). The kernel must agree with spglib on all of the
sample; amcheck judges crystals and refuses what no operation compensates, so it is only timed. One thread,
one process, processor time. Goal: 10⁶ shifts in 1 s.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import spglib

from altermag import classify, prototypes, special_positions, stack, stacking_map
from altermag.operations import element_numbers
from altermag.stacking import Bilayer

DISTANCE = 6.35  # Å


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shifts", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    mono = prototypes.ptbr3()
    rng = np.random.default_rng(0)
    shifts = rng.random((options.shifts, 2))
    print("| operator | shifts | kernel (s) | peer | its time a stacking (ms) | ratio | equal answers |")
    print("|---|---|---|---|---|---|---|")
    for op in ("mirror", "identity"):
        # The answers themselves, not only their index, belong to the time.
        times = []
        for _ in range(options.repeats):
            start = time.process_time()
            found = stacking_map(mono, op, shifts)
            assert len(found.kind) == len(shifts)
            times.append(time.process_time() - start)
        kernel = statistics.median(times)
        special = [shift for position in special_positions(mono, op) for shift in position.equivalent]
        sample = np.vstack([special, rng.random((max(0, options.sample - len(special)), 2))])
        expected = stacking_map(mono, op, sample)
        for name, answer in (("spglib", by_spglib), ("amcheck", by_amcheck)):
            if find_spec(name) is None:
                continue
            start = time.process_time()
            kinds = [answer(stack(mono, op, shift, distance=DISTANCE)) for shift in sample]
            each = (time.process_time() - start) / len(sample)
            equal = "not asked"
            if name == "spglib":
                equal = f"{int((np.array(kinds) == expected.kind).sum())} of {len(sample)}"
            ratio = each / (kernel / len(shifts))
            cells = (
                op,
                f"{len(shifts):,}",
                f"{kernel:.3f}",
                name,
                f"{1e3 * each:.2f}",
                f"{ratio:,.0f}",
                equal,
            )
            print("| " + " | ".join(cells) + " |", flush=True)


def by_spglib(bilayer: Bilayer) -> str:
    return classify(bilayer.atoms).kind


def by_amcheck(bilayer: Bilayer) -> bool | None:
    from amcheck import is_altermagnet

    cell: Any = (bilayer.lattice, bilayer.frac_coords, element_numbers(bilayer.species))
    found: Any = spglib.get_symmetry(cell, symprec=1e-3)
    spins = ["n" if moment == 0 else "u" if moment > 0 else "d" for moment in bilayer.magmoms]
    operations = list(zip(found["rotations"], found["translations"], strict=True))
    try:
        return bool(
            is_altermagnet(operations, bilayer.frac_coords, found["equivalent_atoms"], bilayer.species, spins)
        )
    except (ValueError, RuntimeError):
        return None


if __name__ == "__main__":
    main()
