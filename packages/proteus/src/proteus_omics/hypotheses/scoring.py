"""Five scores of a hypothesis, computed from results alone, and the rank they give (section 2.9)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from proteus_omics.hypotheses.guard import GuardReport
from proteus_omics.hypotheses.references import Tables
from proteus_omics.models import Hypothesis

if TYPE_CHECKING:
    from proteus_omics.knowledge import Knowledge

SCORES = ("reliability", "coherence", "literature", "novelty", "evaluability")


def score_hypotheses(
    hypotheses: Sequence[Hypothesis], tables: Tables, knowledge: Knowledge | None = None, alpha: float = 0.05
) -> list[Hypothesis]:
    """The hypotheses with their scores in [0, 1] (None: cannot be said), ranked.

    Ranked are the verified ones, by reliability, then evaluability, then novelty; the others come last, with
    the rank None.
    """
    opposed = _opposed(hypotheses)
    scored = [
        one.model_copy(
            update={
                "scores": {
                    "reliability": reliability(one, tables, alpha),
                    "coherence": coherence(one, opposed=one.id in opposed),
                    "literature": literature(one, tables, knowledge),
                    "novelty": novelty(one, tables, knowledge),
                    "evaluability": evaluability(one),
                }
            }
        )
        for one in hypotheses
    ]

    def order(one: Hypothesis) -> tuple[bool, float, float, float, str]:
        values = [one.scores[name] for name in ("reliability", "evaluability", "novelty")]
        first, second, third = (-1.0 if value is None else value for value in values)
        return one.status != "verified", -first, -second, -third, one.id

    ranked = sorted(scored, key=order)
    return [
        one.model_copy(update={"rank": place if one.status == "verified" else None})
        for place, one in enumerate(ranked, start=1)
    ]


@dataclass(frozen=True)
class _Row:
    """The row that a hypothesis is about."""

    keys: dict[str, str]
    cells: pd.Series
    q: float


def reliability(hypothesis: Hypothesis, tables: Tables, alpha: float) -> float | None:
    """Mean of 1 - q/alpha (not below 0), sign stability, the worst |t| ratio and 1 - missing share.

    Of those that there are; None for a hypothesis without a cell.
    """
    row = _row(hypothesis, tables)
    if row is None:
        return None
    parts = [float(np.clip(1 - row.q / alpha, 0, 1))] if np.isfinite(row.q) else []
    for table, column in (("bootstrap_sign", "sign_stability"), ("leave_one_out", "worst_ratio")):
        value = _beside(table, column, row, tables)
        if value is not None:
            parts.append(float(np.clip(value, 0, 1)))
    if {"n_ref", "n_alt", "n_valid"} <= set(row.cells.index):
        models = tables.frame("de_models")
        contrast = row.keys.get("contrast")
        if models is not None and contrast in set(models["contrast"]):
            model = models.set_index("contrast").loc[contrast]
            there = float(row.cells["n_ref"] + row.cells["n_alt"])
            parts.append(float(np.clip(there / float(model["n_ref"] + model["n_alt"]), 0, 1)))
    return float(np.mean(parts)) if parts else None


def coherence(hypothesis: Hypothesis, *, opposed: bool) -> float:
    """Verified claims over claims; 0 where another hypothesis says the opposite."""
    report = GuardReport(status=hypothesis.status, findings=hypothesis.findings)
    return 0.0 if opposed or not report.n_claims else report.n_verified / report.n_claims


def literature(hypothesis: Hypothesis, tables: Tables, knowledge: Knowledge | None) -> float | None:
    """Best support among the entities' genes: 1 for an interaction, 0.5 for a set that both are in, else 0.

    None without knowledge, or with one gene alone, which has nothing to be supported by.
    """
    genes = _genes(hypothesis, tables, knowledge)
    if knowledge is None or len(genes) < 2:
        return None
    best = 0.0
    for a, b in itertools.combinations(genes, 2):
        if knowledge.connected(a, b):
            return 1.0
        if knowledge.terms.get(a, frozenset()) & knowledge.terms.get(b, frozenset()):
            best = 0.5
    return best


def novelty(hypothesis: Hypothesis, tables: Tables, knowledge: Knowledge | None) -> float | None:
    """1 - the share of its pairs (of entities, of an entity and its contrast's words) that are known.

    A single gene's pairs are those with the sets whose names hold a word of the contrast. None without
    knowledge.
    """
    genes = _genes(hypothesis, tables, knowledge)
    if knowledge is None or not genes:
        return None
    pairs = list(itertools.combinations(genes, 2))
    known = [
        knowledge.connected(a, b)
        or bool(knowledge.terms.get(a, frozenset()) & knowledge.terms.get(b, frozenset()))
        for a, b in pairs
    ]
    words = _words(hypothesis)
    for gene in genes if words else ():
        names = {knowledge.name(term).lower() for term in knowledge.terms.get(gene, frozenset())}
        known += [any(word in name for name in names) for word in words]
    return 1 - float(np.mean(known)) if known else None


def evaluability(hypothesis: Hypothesis) -> float:
    """The share that is there of entity, direction, contrast, measurable assay, and a finite sample size."""
    prediction = hypothesis.prediction
    if prediction is None:
        return 0.0
    parts = (
        prediction.entity,
        prediction.direction,
        prediction.contrast,
        prediction.assay,
        prediction.n_needed is not None,
    )
    return sum(map(bool, parts)) / len(parts)


def _row(hypothesis: Hypothesis, tables: Tables) -> _Row | None:
    for ref in hypothesis.refs:
        table = tables.get(ref.table)
        if table is None:
            continue
        cells = table.data.iloc[table.row(ref.row)]
        q = next((name for name, role in table.roles.items() if role == "q"), None)
        keys = {key: str(cells[key]) for key in table.keys}
        return _Row(keys, cells, float(cells[q]) if q is not None and pd.notna(cells[q]) else np.nan)
    return None


def _beside(table: str, column: str, row: _Row, tables: Tables) -> float | None:
    """The value that another table has for the same protein and contrast."""
    found = tables.get(table)
    if found is None or not set(found.keys) <= set(row.keys):
        return None
    try:
        value = found.data[column].iloc[found.row("|".join(row.keys[key] for key in found.keys))]
    except KeyError:
        return None
    return float(value) if pd.notna(value) else None


def _genes(hypothesis: Hypothesis, tables: Tables, knowledge: Knowledge | None) -> list[str]:
    if knowledge is None:
        return []
    genes = [one if one in knowledge.genes else (knowledge.symbol(one) or "") for one in hypothesis.entities]
    return sorted({gene for gene in genes if gene in knowledge.genes})


def _words(hypothesis: Hypothesis) -> list[str]:
    contrast = hypothesis.prediction.contrast if hypothesis.prediction is not None else ""
    words = contrast.partition("_vs_")[0].replace("_", " ").lower().split()
    return sorted({word for word in words if len(word) > 4})


def _opposed(hypotheses: Sequence[Hypothesis]) -> set[str]:
    """Hypotheses of one kind that say opposite directions of the same entity and contrast."""
    said: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for one in hypotheses:
        if one.prediction is not None and one.status == "verified":
            about = (one.kind, *one.entities, one.prediction.contrast)
            said.setdefault(about, {}).setdefault(one.prediction.direction, []).append(one.id)
    return {id for ways in said.values() if len(ways) > 1 for ids in ways.values() for id in ids}
