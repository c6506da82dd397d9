"""The class of one structure, beside amcheck, spinspg, spglib and FindSpinGroup: time and agreement.

    python benchmarks/classification.py [--repeats 20]

Bilayers are reversed PtBr3 (16 atoms). A peer's time includes the symmetry search that it needs (spglib for
amcheck). amcheck and FindSpinGroup answer for crystals, so they are compared with dim=3; spinspg gives the
number of operations. The measured magnets are the 42 of the data set `magndata-42`, where it is at hand, read
beforehand. Peers that are not installed are left out (extra `peers`; FindSpinGroup: pip install
findspingroup). One process, one thread, in turn, processor time (a busy machine counts less), ten calls a
turn; a ratio is (time of the peer / ours), the median of the pairs. Ours knows a monolayer's operations from
the first bilayer of it on; what that first one takes stands in a column of its own.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import spglib

from altermag import AltermagError, classify, prototypes, stack
from altermag.io import Crystal, read
from altermag.operations import element_numbers, relative_moments
from altermag.slabs import on_common_axis

SHIFTS = {
    "AA'": (0, 0),
    "AB'": (1 / 3, 2 / 3),
    "BA'": (2 / 3, 1 / 3),
    "bridge": (1 / 2, 0),
    "line": (0.1, 0.2),
}
SYMPREC = 1e-2
CALLS = 10


def amcheck_says(crystal: Crystal) -> bool | None:
    """Return whether it is an altermagnet; None where amcheck refuses (it does ferri- and ferromagnets)."""
    from amcheck import is_altermagnet

    cell: Any = (crystal.lattice, crystal.frac_coords, element_numbers(crystal.species))
    found: Any = spglib.get_symmetry(cell, symprec=SYMPREC)
    moments = relative_moments(on_common_axis(np.asarray(crystal.magmoms, dtype=float))[0], 0.02)
    spins = ["n" if moment == 0 else "u" if moment > 0 else "d" for moment in moments]
    operations = list(zip(found["rotations"], found["translations"], strict=True))
    positions = np.array(crystal.frac_coords)
    try:
        answer = is_altermagnet(operations, positions, found["equivalent_atoms"], crystal.species, spins)
    except (ValueError, RuntimeError):
        return None
    return bool(answer)


def spinspg_says(crystal: Crystal) -> int:
    """Return the number of spin symmetry operations, the spin-only group left out."""
    from spinspg import get_spin_symmetry

    vectors = np.outer(np.asarray(crystal.magmoms), [0, 0, 1])
    numbers = np.array(element_numbers(crystal.species))
    _, rotations, _, _ = get_spin_symmetry(
        crystal.lattice, crystal.frac_coords, numbers, vectors, symprec=SYMPREC
    )
    return len(rotations)


def findspingroup_says(crystal: Crystal) -> str:
    """Return the phase of the headline, that of a crystal."""
    import findspingroup

    found = findspingroup.find_spin_group_basic_from_data(
        *findspingroup_takes(crystal), input_spin_setting="cartesian"
    )
    return str(found["magnetic_phase"] if isinstance(found, Mapping) else found.magnetic_phase)


def quasi2d_says(crystal: Crystal) -> str:
    """Return what FindSpinGroup's layer mode says of the spins in the plane."""
    import findspingroup

    found = findspingroup.find_spin_group_from_data(
        *findspingroup_takes(crystal),
        input_spin_setting="cartesian",
        calculation_mode="quasi2d",
        vacuum_axis="c",
    )
    return str(found.quasi_2d["spin_splitting_2d"])


def findspingroup_takes(crystal: Crystal) -> tuple[Any, ...]:
    """Return name, cell parameters, fractions, elements, occupancies and Cartesian moments."""
    moments = np.outer(np.asarray(crystal.magmoms), [0, 0, 1])
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    a, b, c = crystal.lattice / lengths[:, None]
    angles = [float(np.degrees(np.arccos(x @ y))) for x, y in ((b, c), (a, c), (a, b))]
    cell, occupied = [*lengths.tolist(), *angles], [1.0] * len(crystal.species)
    return "bilayer", cell, crystal.frac_coords.tolist(), list(crystal.species), occupied, moments


PEERS: dict[str, tuple[str, Callable[[Crystal], Any]]] = {
    "amcheck": ("amcheck", amcheck_says),
    "spinspg": ("spinspg", spinspg_says),
    "FindSpinGroup": ("findspingroup", findspingroup_says),
    "FindSpinGroup quasi2d": ("findspingroup", quasi2d_says),
}
"""By name: the module that must be there, and what asks it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    warnings.simplefilter("ignore")
    mono = prototypes.ptbr3()
    bilayers = {name: stack(mono, "mirror", shift, distance=6.35) for name, shift in SHIFTS.items()}
    head = "| bilayer | ours (ms) | the first of a monolayer (ms) | class in the plane | peer"
    print(head + " | its time (ms) | ratio | its answer |\n|---|---|---|---|---|---|---|---|")
    for name, bilayer in bilayers.items():
        crystal = Crystal(bilayer.lattice, bilayer.frac_coords, bilayer.species, bilayer.magmoms)
        found, in_space = classify(bilayer), classify(bilayer, dim=3)
        fresh = [stack(prototypes.ptbr3(), "mirror", SHIFTS[name], distance=6.35) for _ in range(repeats)]
        first = 1e3 * statistics.median(seconds(lambda b=b: classify(b)) for b in fresh)
        for peer, (module, says) in PEERS.items():
            if find_spec(module) is None:
                continue
            answer = says(crystal)
            turns, calls = (repeats, CALLS) if module != "findspingroup" else (1, 1)  # it takes seconds
            own, theirs, ratio = in_turn(
                lambda b=bilayer: classify(b), lambda s=says, c=crystal: s(c), turns, calls
            )
            said = " ".join(str(answer).split())  # FindSpinGroup's has line breaks
            note = f"{said}; ours in space: {in_space.kind}, {len(in_space.operations)} operations"
            row = (
                name,
                f"{own:.2f}",
                f"{first:.2f}",
                found.kind,
                peer,
                f"{theirs:.1f}",
                f"{ratio:.0f}",
                note,
            )
            print("| " + " | ".join(row) + " |", flush=True)
    magnets()


def magnets() -> None:
    """Compare with amcheck on the measured magnets, each classified as a crystal, once."""
    if find_spec("amcheck") is None or find_spec("tenfold") is None:
        print("\namcheck or tenfold is not installed: no measured magnets")
        return
    from tenfold.data import DataUnavailableError, get

    try:
        folder = get("magndata-42")
    except DataUnavailableError as error:
        print(f"\nmagndata-42 is not at hand: {error}")
        return
    agree, refused, differ, own, theirs = 0, 0, [], 0.0, 0.0
    for path in sorted(folder.glob("*.mcif")):
        crystal = read(path)
        start = time.process_time()
        try:
            kind = classify(tuple(crystal[:4]), dim=3, symprec=SYMPREC).kind
        except AltermagError:
            refused += 1  # noncollinear
            continue
        middle = time.process_time()
        answer = amcheck_says(crystal)
        if answer is None:
            refused += 1
            continue
        own, theirs = own + middle - start, theirs + time.process_time() - middle
        if answer == (kind == "altermagnet"):
            agree += 1
        else:
            differ.append(path.name)
    print(
        f"\nmeasured magnets: {agree} agree, {len(differ)} differ {differ}, {refused} refused by one of them"
    )
    print(f"those that both judge: amcheck {theirs:.2f} s, ours {own:.2f} s, ratio {theirs / own:.1f}")


def in_turn(
    ours: Callable[[], object], peer: Callable[[], object], repeats: int, calls: int
) -> tuple[float, float, float]:
    """Return median milliseconds a call of ours and of the peer, and the median ratio of the pairs."""
    pairs = [(seconds(ours, CALLS), seconds(peer, calls)) for _ in range(repeats)]
    own, theirs = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    return own, theirs, statistics.median(other / mine for mine, other in pairs)


def seconds(call: Callable[[], object], calls: int = 1) -> float:
    """Return the processor seconds of one call, the mean of several."""
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls


if __name__ == "__main__":
    main()
