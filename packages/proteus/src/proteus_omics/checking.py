"""A run against its own record, its predictions in another cohort, and two runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from proteus_omics.api import Run
from proteus_omics.design import Design
from proteus_omics.engine.store import INPUT_FILE, Store, tsv_of
from proteus_omics.errors import DataError, VerifyError
from proteus_omics.hypotheses.guard import Guard
from proteus_omics.models import Hypothesis
from proteus_omics.tools.registry import ToolContext, get_tool

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Verification:
    """What was looked at: files by their hash, statements by the guard, references by their cell.

    Files are the data, what the steps left, and the copies of tables for people.
    """

    files: int
    statements: int
    references: int


def verify(folder: str | Path) -> Verification:
    """Hash every file again, check every statement again, look every reference up again.

    The copies of tables for people (.tsv) are compared with the tables. Raises `VerifyError` that lists every
    difference.
    """
    run = Run(Path(folder))
    store = Store(run.folder)
    kept = {INPUT_FILE: run.record["input_sha256"]} | {
        one["path"]: one["sha256"]
        for event in store.events()
        if event["event"] == "step_finished"
        for one in event["outputs"].values()
    }  # the last event of a step counts: one that was found damaged was run again
    wrong = [
        f"{path} is missing or changed" for path, sha256 in kept.items() if not store.intact(path, sha256)
    ]
    if wrong:
        raise VerifyError("; ".join(wrong))
    copied = [path for path in kept if path.endswith(".parquet")]
    wrong = [f"{tsv_of(path)} is missing or changed" for path in copied if not store.is_tsv_of(path)]
    if wrong:
        raise VerifyError("; ".join(wrong))
    tables = run.index
    guard = Guard(tables, float(run.record["settings"]["alpha"]))
    for one in run.hypotheses:
        status = guard.check(one.statement).status
        if status != one.status and one.status == "verified":
            wrong.append(f"{one.id} was {one.status} and is {status}: {one.statement}")
        for ref in one.refs:
            try:
                tables.value(tables.resolve(str(ref)))
            except DataError as error:
                wrong.append(f"{one.id}: {error}")
    if wrong:
        raise VerifyError("; ".join(wrong))
    return Verification(
        len(kept) + len(copied), len(run.hypotheses), sum(len(one.refs) for one in run.hypotheses)
    )


def validate(run: Run, cohort: AnnData, *, design: Design, alpha: float = 0.05) -> pd.DataFrame:
    """Every prediction of a difference, tested once in another cohort, one-sided.

    A row a prediction that the cohort can test: `hypothesis, entity, contrast, direction, log2fc,
    p_one_sided, same_direction, replicated` (same direction and p < alpha). `attrs["replication_rate"]` is
    the share. The cohort is brought to log2 and normalised as the run's data were. Raises `DataError` if none
    can be tested.
    """
    context = ToolContext(design=design, alpha=alpha)
    even, tool = get_tool("normalize"), get_tool("de_limma")
    method = {"method": run.record["settings"]["normalization"]}
    data = even({"data": cohort}, even.parse(method), context)["matrix"]
    de = tool({"data": data}, tool.parse({}), context)["de"]
    by_name = de.assign(name=de["gene"].where(de["gene"] != "", de["protein"]))
    rows = []
    for one in run.hypotheses:
        prediction = one.prediction
        if prediction is None or one.kind != "differential":
            continue
        same = by_name[
            ((by_name["name"] == prediction.entity) | (by_name["protein"] == prediction.entity))
            & (by_name["contrast"] == prediction.contrast)
        ]
        if len(same) != 1 or not np.isfinite(same["p_value"].iloc[0]):
            continue
        effect, p = float(same["log2fc"].iloc[0]), float(same["p_value"].iloc[0])
        agrees = (effect > 0) == (prediction.direction == "up")
        one_sided = p / 2 if agrees else 1 - p / 2
        rows.append(
            {
                "hypothesis": one.id,
                "entity": prediction.entity,
                "contrast": prediction.contrast,
                "direction": prediction.direction,
                "log2fc": effect,
                "p_one_sided": one_sided,
                "same_direction": agrees,
                "replicated": agrees and one_sided < alpha,
            }
        )
    if not rows:
        raise DataError("the cohort has none of the predicted proteins in the same contrast")
    found = pd.DataFrame(rows)
    found.attrs["replication_rate"] = float(found["replicated"].mean())
    return found


def compare(a: Run, b: Run) -> pd.DataFrame:
    """Hypotheses of two runs side by side: in both or in one of them, with their ranks.

    Two are the same if their kind, entities, contrast and direction are.
    """
    left, right = {_about(one): one for one in a.hypotheses}, {_about(one): one for one in b.hypotheses}
    rows = []
    for about in dict.fromkeys([*left, *right]):
        first, second = left.get(about), right.get(about)
        shown = first if first is not None else second
        assert shown is not None
        rows.append(
            {
                "kind": shown.kind,
                "title": shown.title,
                "in": "both" if first and second else "first" if first else "second",
                "rank_first": None if first is None else first.rank,
                "rank_second": None if second is None else second.rank,
                "status_first": None if first is None else first.status,
                "status_second": None if second is None else second.status,
            }
        )
    return pd.DataFrame(rows)


def _about(one: Hypothesis) -> tuple[str, ...]:
    prediction = one.prediction
    said = () if prediction is None else (prediction.contrast, prediction.direction)
    return (one.kind, *one.entities, *said, *(() if said else (one.statement,)))
