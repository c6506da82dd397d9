"""Which genes a table calls hits, against which background: what enrichment and networks ask of any table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from proteus_omics.errors import ToolError
from proteus_omics.knowledge import Knowledge
from proteus_omics.knowledge.base import LEAST_OVERLAP

Direction = Literal["any", "up", "down"]

ESTIMATES = ("log2fc", "coef", "rho", "difference")
GROUPING = ("contrast", "module", "trait", "population")


@dataclass(frozen=True)
class HitList:
    """Hits of one contrast, module or trait."""

    contrast: str
    hits: frozenset[str]
    background: frozenset[str]
    """Every gene that was tested, the hits among them."""


def hit_lists(found: pd.DataFrame, alpha: float, direction: Direction = "any") -> Iterator[HitList]:
    """A list a contrast (module, trait; `survival` of a Cox table): the genes with q < alpha.

    Of a table of modules each module's members are the hits. Genes that no row names are skipped. Raises
    `ToolError` for a table that has neither q-values nor modules.
    """
    modules = "module" in found and "q_value" not in found
    if not modules and "q_value" not in found:
        raise ToolError(f"hits need a column q_value or module; this table has {', '.join(found.columns)}")
    names = gene_names(found)
    grouping = [name for name in GROUPING if name in found]
    labels = (
        found[grouping].astype(str).agg("|".join, axis=1) if grouping else pd.Series("survival", found.index)
    )
    if modules:
        background = frozenset(names[names != ""])
        for label in sorted(set(labels) - {"none"}):
            yield HitList(label, frozenset(names[(labels == label) & (names != "")]), background)
        return
    estimate = next((found[name] for name in ESTIMATES if name in found), None)
    if direction != "any" and estimate is None:
        raise ToolError(f"direction {direction!r} needs one of the columns {', '.join(ESTIMATES)}")
    chosen = found["q_value"] < alpha
    if estimate is not None and direction != "any":
        chosen &= estimate > 0 if direction == "up" else estimate < 0
    tested = (names != "") & found["p_value"].notna()
    for label in sorted(set(labels)):
        inside = tested & (labels == label)
        yield HitList(label, frozenset(names[inside & chosen]), frozenset(names[inside]))


def gene_names(found: pd.DataFrame) -> pd.Series:
    """Symbol of each row, the first of a group (`A;B`); the empty text where there is none."""
    if "gene" not in found:
        raise ToolError("the table has no gene symbols; read the data with them or give a symbol map")
    text = found["gene"].astype(object).where(found["gene"].notna(), "").astype(str)
    return text.str.partition(";")[0].str.strip()


def required(knowledge: Knowledge | None, background: pd.Series | frozenset[str]) -> Knowledge:
    """The knowledge. Raises `ToolError` without one or where it is of another organism."""
    if knowledge is None or not (knowledge.sets or knowledge.edges):
        raise ToolError("there is no knowledge (gene sets, edges); give the run a knowledge folder")
    overlap = knowledge.overlap(background)
    if overlap < LEAST_OVERLAP:
        raise ToolError(
            f"the knowledge names {overlap:.0%} of the quantified genes, below {LEAST_OVERLAP:.0%}: it is of "
            "another organism or has other identifiers"
        )
    return knowledge
