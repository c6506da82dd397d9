"""Counts are made again: "43 proteins are increased in cirrhosis" (section 2.8, rule 5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from proteus_omics.hypotheses.guard.comparisons import Oriented
from proteus_omics.hypotheses.guard.evaluation import Evaluator, Judged
from proteus_omics.hypotheses.guard.numbers import BOUND, Number, states
from proteus_omics.hypotheses.guard.wording import Assertion

KEY_OF = {
    "protein": "protein",
    "gene": "protein",
    "term": "term",
    "module": "module",
    "population": "population",
}
TESTED = re.compile(r"\b(?:tested|quantified|analy[sz]ed|measured)\b", re.I)
BEYOND = re.compile(r"\|?log2 ?(?:fc|fold change)\|?\s*>\s*(\d*\.?\d+)", re.I)


def recount(
    number: Number,
    text: str,
    alternatives: Sequence[Oriented],
    within: Sequence[str],
    words: Sequence[Assertion],
    evaluator: Evaluator,
) -> Judged:
    """Whether that many rows are as the text says, in one of the contrasts; they have the names `within`."""
    if any(one.negated for one in words if one.kind == "direction"):
        return Judged(None, "it is not clear what is counted")
    bound = BOUND.search(text)
    limit = float(bound[1]) if bound else evaluator.alpha
    beyond = BEYOND.search(text)
    direction = next((one for one in words if one.kind == "direction"), None)
    seen: list[str] = []
    for table, rows, sign in _families(number.noun, text, alternatives, within, evaluator):
        q = evaluator.column_of(table, "q")
        if q is None:
            continue
        values = evaluator.vocabulary.column(table, q)[rows]
        kept = np.isfinite(values) if TESTED.search(text) else values < limit
        negated = any(one.negated for one in words if one.kind in ("significant", "differs"))
        if negated and not TESTED.search(text):
            kept = values >= limit
        estimate = evaluator.estimate(table)
        if estimate is not None and (direction is not None or beyond is not None):
            effects = evaluator.vocabulary.column(table, estimate)[rows]
            if direction is not None:
                if sign == 0:
                    continue
                kept = kept & (effects * sign * direction.sign > 0)
            if beyond is not None:
                kept = kept & (np.abs(effects) > float(beyond[1]))
        found = int(kept.sum())
        if states(number, found):
            return Judged(True, f"{found} rows of {table}")
        seen.append(f"{table} has {found}")
    if not seen:
        return Judged(None, f"there is no table in which to count {number.noun or 'this'}s")
    return Judged(False, "; ".join(dict.fromkeys(seen)))


def _families(
    noun: str, text: str, alternatives: Sequence[Oriented], within: Sequence[str], evaluator: Evaluator
) -> Iterator[tuple[str, np.ndarray, int]]:
    """Rows of a table and contrast that such a noun counts: the tests of effects before other tables."""
    key = KEY_OF.get(noun, "")
    known = evaluator.vocabulary.tables
    tables = [id for id, table in known.items() if key in table.keys and evaluator.column_of(id, "q")]
    effects = [id for id in tables if "log2fc" in known[id].data.columns and not id.startswith("treat")]
    detected = [id for id in tables if "detected_alt" in known[id].data.columns]
    chosen = detected if re.search(r"\bdetect", text) else effects or tables
    for id in chosen:
        rows = np.array(
            evaluator.vocabulary.rows(id, within) if within else range(len(known[id].data)), dtype=np.intp
        )
        if "contrast" not in known[id].data.columns:
            yield id, rows, 1
            continue
        contrast = evaluator.vocabulary.column(id, "contrast")[rows]
        for one in alternatives:
            if (contrast == one.contrast).any() or not within:
                yield id, rows[contrast == one.contrast], one.sign
