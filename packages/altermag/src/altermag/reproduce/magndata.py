"""42 measured magnetic structures against the expected answers and against amcheck: M1 and M2."""

from __future__ import annotations

import csv
import time
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import numpy as np
import spglib

from altermag.classification import classify
from altermag.errors import AltermagError
from altermag.io import Crystal, read
from altermag.operations import element_numbers, relative_moments
from altermag.slabs import on_common_axis
from tenfold import Trial, TrialContext
from tenfold.data import get

SYMPREC = 1e-2
REPEATS = 3
"""The best of so many times counts, of both."""
AMCHECK_ATOMS = 48
"""amcheck compares all pairs of atoms under all operations: beyond this it takes too long."""
FERRI = {"ferromagnet": "ferro-or-ferrimagnet", "ferrimagnet": "ferro-or-ferrimagnet"}


def expected_classes() -> list[dict[str, str]]:
    """Return the rows of magndata.csv: file, kind_3d, wave_3d and what amcheck said."""
    text = files("altermag.reproduce").joinpath("magndata.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def magndata_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Classify every structure as a crystal; time it, and amcheck on the same structure, in this process."""
    folder, rows = get("magndata-42"), expected_classes()
    compared = find_spec("amcheck") is not None
    mismatches, disagreements, ours, theirs, both = [], [], 0.0, 0.0, 0
    for number, row in enumerate(rows):
        crystal = read(folder / row["file"])
        kind, wave, seconds = classified(crystal)
        if (FERRI.get(kind, kind), wave or "") != (row["kind_3d"], row["wave_3d"]):
            mismatches.append(f"{row['file']}: {kind} {wave}, expected {row['kind_3d']} {row['wave_3d']}")
        if compared and kind != "noncollinear" and len(crystal.species) <= AMCHECK_ATOMS:
            answer, other = amcheck_answer(crystal)
            if answer is not None:
                ours, theirs, both = ours + seconds, theirs + other, both + 1
                if answer != (kind == "altermagnet"):
                    disagreements.append(row["file"])
        context.progress(number + 1, len(rows))
    metrics: dict[str, float] = {"magndata_mismatches": len(mismatches), "magndata_structures": len(rows)}
    if compared:
        metrics |= {
            "magndata_speed_over_amcheck": theirs / ours,
            "amcheck_disagreements": len(disagreements),
            "amcheck_answers": both,
        }
    return {"metrics": metrics, "mismatches": mismatches, "disagreements": disagreements}


def classified(crystal: Crystal) -> tuple[str, str | None, float]:
    """Return class, wave of the bulk and seconds; "noncollinear" where the moments are refused as that."""
    best = np.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        try:
            found = classify(tuple(crystal[:4]), dim=3, symprec=SYMPREC)
        except AltermagError as error:
            if "collinear" not in str(error):
                raise
            return "noncollinear", None, 0.0
        best = min(best, time.perf_counter() - start)
    return found.kind, found.wave, best


def amcheck_answer(crystal: Crystal) -> tuple[bool | None, float]:
    """Return whether amcheck calls it an altermagnet, None where it raises, and its seconds with spglib's."""
    from amcheck import is_altermagnet

    moments = relative_moments(on_common_axis(np.asarray(crystal.magmoms, dtype=float))[0], 0.02)
    spins = ["n" if moment == 0 else "u" if moment > 0 else "d" for moment in moments]
    cell: Any = (crystal.lattice, crystal.frac_coords, element_numbers(crystal.species))
    best, answer = np.inf, None
    for _ in range(REPEATS):
        start = time.perf_counter()
        found: Any = spglib.get_symmetry(cell, symprec=SYMPREC)
        operations = list(zip(found["rotations"], found["translations"], strict=True))
        positions = np.array(crystal.frac_coords)
        try:
            answer = bool(
                is_altermagnet(operations, positions, found["equivalent_atoms"], crystal.species, spins)
            )
        except (ValueError, RuntimeError):  # it refuses ferri- and ferromagnets so
            return None, 0.0
        best = min(best, time.perf_counter() - start)
    return answer, best
