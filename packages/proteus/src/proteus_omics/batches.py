"""Many runs from a manifest, each in a process and a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from proteus_omics.errors import DataError

COLUMNS = (
    "input", "out", "metadata", "sample_id", "panel", "quantity", "scale", "modality", "normalization",
    "min_frac", "condition", "reference", "batch", "subject", "sample", "time", "event", "knowledge",
    "planner", "base_url", "model", "seed",
)  # fmt: skip
"""Of a manifest: `input` and `out`, and options of `proteus-omics run` by their names."""


def run_batch(
    manifest: str | Path,
    workers: int = 1,
    *,
    planner: str | None = None,
    base_url: str | None = None,
    model: str | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Run every row of a CSV; yields `out, exit_code, message` of each, in the manifest's order.

    `planner`, `base_url` and `model` are for rows that name none; one with the planner `rules` has no model.
    A run that fails stops no other; one that was killed goes on when the batch is repeated. Raises
    `DataError` for a manifest without `input` and `out`, with columns that are no options, or with two runs
    in one folder.
    """
    if not Path(manifest).is_file():
        raise DataError(f"there is no file {manifest}")
    try:
        table = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    except ValueError as error:  # nothing in it, lines of different lengths, other than text
        raise DataError(f"{manifest} is no table with commas: {str(error).strip()}") from error
    missing = {"input", "out"} - set(table.columns)
    unknown = [name for name in table.columns if name not in COLUMNS]
    if missing or unknown:
        raise DataError(
            f"{manifest}: missing columns {', '.join(sorted(missing)) or 'none'}; "
            f"unknown columns {', '.join(unknown) or 'none'}; there are {', '.join(COLUMNS)}"
        )
    if table["out"].duplicated().any():
        raise DataError(
            f"{manifest}: two runs have the folder {table['out'][table['out'].duplicated()].iloc[0]}"
        )
    with ThreadPoolExecutor(max(1, workers)) as pool:
        defaults = {"planner": planner, "base_url": base_url, "model": model}
        yield from pool.map(_run, [_completed(row, defaults) for row in table.to_dict("records")])


def _completed(row: Mapping[str, str], defaults: Mapping[str, str | None]) -> Mapping[str, str]:
    if (row.get("planner") or defaults["planner"]) == "rules":
        return row
    return {**row, **{name: value for name, value in defaults.items() if value and not row.get(name)}}


def _run(row: Mapping[str, str]) -> Mapping[str, Any]:
    options = [
        part
        for name, value in row.items()
        if value and name != "input"
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    command = [sys.executable, "-m", "proteus_omics", "run", row["input"], *options]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return {"out": row["out"], "exit_code": done.returncode, "message": lines[-1] if lines else ""}
