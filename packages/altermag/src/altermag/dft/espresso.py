"""Inputs for Quantum ESPRESSO, written by ASE: pw.x for the density, then for the bands (section 2.9)."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.espresso import write_espresso_in
from numpy.typing import ArrayLike

from altermag.dft.results import check_points, write_whole
from altermag.errors import AltermagError
from altermag.io import Layered, to_ase

SYSTEM = {
    "assume_isolated": "2D",
    "degauss": 0.00147,  # Ry, 0.02 eV
    "ecutwfc": 60.0,
    "ecutrho": 480.0,
    "input_dft": "pbe",
    "nspin": 2,
    "occupations": "smearing",
    "smearing": "gaussian",
    "vdw_corr": "dft-d3",
}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "scf": {"control": {"calculation": "scf"}, "electrons": {"conv_thr": 1e-9}},
    "relax": {
        "control": {"calculation": "relax", "forc_conv_thr": 2e-4},
        "electrons": {"conv_thr": 1e-9},
        "ions": {"ion_dynamics": "bfgs"},
    },
}
RUN = """#!/bin/sh
# The density, then the bands at the points that test the symmetry.
set -eu
${{PW:-pw.x}} -in {first} > {log}
${{PW:-pw.x}} -in bands.in > bands.out
"""


def write_inputs(
    layered: Layered,
    out: str | PathLike[str],
    preset: str = "scf",
    *,
    pseudopotentials: Mapping[str, str] | None = None,
    mesh: tuple[int, int] = (9, 9),
    k_points: ArrayLike | None = None,
    system: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write PRESET.in, bands.in and run.sh into a folder and return them.

    `pseudopotentials` names a file by element, by default ELEMENT.upf; pw.x looks in ESPRESSO_PSEUDO. Bands
    are at `k_points` (Nk, 2) in fractions, by default those of `check_points`; `system` changes entries of
    &SYSTEM. Raises `AltermagError` for an unknown preset.
    """
    if preset not in PRESETS:
        raise AltermagError(f"Quantum ESPRESSO has no preset {preset!r}; there are: {', '.join(PRESETS)}")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    points = check_points(layered) if k_points is None else np.asarray(k_points, dtype=float).reshape(-1, 2)
    control = {"prefix": "altermag", "outdir": "./work", "verbosity": "high"}
    sections = {name: dict(entries) for name, entries in PRESETS[preset].items()}
    first = {**sections, "control": control | sections["control"], "system": SYSTEM | dict(system or {})}
    bands = {**first, "control": control | {"calculation": "bands"}}
    bands.pop("ions", None)
    files = _names(layered, pseudopotentials or {})
    _write(folder / f"{preset}.in", layered, first, files, kpts=(*mesh, 1))
    _write(
        folder / "bands.in",
        layered,
        bands,
        files,
        kpts=np.c_[points, np.zeros(len(points)), np.ones(len(points))],
    )
    write_whole(folder / "run.sh", RUN.format(first=f"{preset}.in", log=f"{preset}.out"))
    return [folder / f"{preset}.in", folder / "bands.in", folder / "run.sh"]


def _names(layered: Layered, given: Mapping[str, str]) -> dict[str, str]:
    absent = sorted(set(given) - set(layered.species))
    if absent:
        raise AltermagError(f"a pseudopotential is given for {', '.join(absent)}, which is not there")
    return {element: f"{element}.upf" for element in layered.species} | dict(given)


def _write(path: Path, layered: Layered, sections: dict[str, Any], files: dict[str, str], kpts: Any) -> None:
    atoms = to_ase(layered)
    # pw.x starts from a share of the valence electrons, at most 1.
    atoms.set_initial_magnetic_moments(0.5 * layered.magmoms / np.abs(layered.magmoms).max())
    with path.open("w", encoding="utf-8") as file:
        write_espresso_in(
            file, atoms, input_data=sections, pseudopotentials=files, kpts=kpts, koffset=(0, 0, 0)
        )
