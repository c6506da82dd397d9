"""What every run of the experiment is held to: the guard on changed statements (C5), and the trail (C6)."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd

from proteus_omics import api
from proteus_omics.checking import verify
from proteus_omics.errors import DataError, VerifyError
from proteus_omics.hypotheses.guard import Guard
from proteus_omics.reproduce.mutations import KINDS, TABLES, is_true, mutants
from tenfold import Trial

ALPHA = 0.05


def judged(found: api.Run, trial: Trial) -> dict[str, Any]:
    """Counts of the guard on statements and their mutants, and of the trail; the mutants also by kind."""
    tables = found.index
    guard, draw = Guard(tables, ALPHA), random.Random(trial.seed)
    levels = sorted(found.profile.levels)
    plain = {id: table.data for id, table in tables.items()}
    statements = [one for one in found.hypotheses if one.status == "verified"]
    counts = {"statements": 0.0, "verified": 0.0, "mutants": 0.0, "caught": 0.0}
    kinds: dict[str, dict[str, Any]] = {
        kind: {"changed": 0, "still true": 0, "caught": 0, "escaped": []} for kind in KINDS
    }
    for one in statements:
        counts["statements"] += 1
        counts["verified"] += guard.check(one.statement).status == "verified"
        others = _entities(plain, one.refs[0].table) if one.refs else []
        for kind, changed in mutants(one.statement, others, levels, draw):
            if changed == one.statement:
                continue
            tally = kinds[kind]
            tally["changed"] += 1
            if is_true(changed, plain, ALPHA):
                tally["still true"] += 1
            elif guard.check(changed).status != "verified":
                tally["caught"] += 1
            else:
                tally["escaped"].append([one.statement, changed])
    counts["caught"] = float(sum(tally["caught"] for tally in kinds.values()))
    counts["mutants"] = counts["caught"] + sum(len(tally["escaped"]) for tally in kinds.values())
    counts["broken"] = float(_broken(found))
    return {"guard": counts, "mutants": kinds}


def _entities(tables: Mapping[str, pd.DataFrame], table: str) -> list[str]:
    """Names that a statement of the table could have had in its place."""
    if table not in TABLES:
        return []
    key = TABLES[table][0]
    data = tables[table]
    if "gene" in data and (data["gene"].astype(str) != "").any():
        counts = data.drop_duplicates(key)["gene"].astype(str).value_counts()
        return sorted(name for name, count in counts.items() if count == 1 and name)
    return sorted(data[key].astype(str).unique())


def _broken(found: api.Run) -> int:
    """References, files and tables that are not as the run says."""
    broken = 0
    for one in found.hypotheses:
        for ref in one.refs:
            try:
                found.index.value(found.index.resolve(str(ref)))
            except DataError:
                broken += 1
    try:
        verify(found.folder)
    except VerifyError:
        broken += 1
    return broken + _differs(found)


def _differs(found: api.Run) -> int:
    """1 where `reproduce.py`, in a process of its own, makes a table that is not identical."""
    command = [sys.executable, str(found.folder / "reproduce.py")]
    if found.record["settings"]["knowledge"]:
        command.append(found.record["settings"]["knowledge"])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "tables compared" not in done.stdout:
        raise RuntimeError(f"reproduce.py failed:\n{done.stderr[-2000:]}")
    return int(done.returncode != 0)
