"""What the rules say of results: sentences of templates, every digit of them a reference (section 2.7).

A sentence names its entity, its direction, its contrast and its numbers in the words that the guard checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from proteus_omics.models import HypothesisDraft, HypothesisKind, Prediction
from proteus_omics.planner.base import Results
from proteus_omics.stats.power import n_needed

Reading: TypeAlias = Callable[[Results], list[HypothesisDraft]]

MOST = 100
"""Statements of one kind and contrast: the smallest q first, then the largest effects."""
BULK_ASSAY = "targeted mass spectrometry (PRM) or an immunoassay"
CELL_ASSAY = "flow or mass cytometry"


def nothing(results: Results) -> list[HypothesisDraft]:
    """Of what describes the data no hypothesis is made."""
    return []


def hit_count(table: pd.DataFrame | None, alpha: float) -> int:
    """Rows with q below alpha."""
    return 0 if table is None or "q_value" not in table else int((table["q_value"] < alpha).sum())


def differential(results: Results) -> list[HypothesisDraft]:
    """A sentence a contrast that counts, then one a protein that differs or is seen in one group only."""
    drafts = []
    for contrast, rows in _by_contrast(results.own.frame("de")):
        alt, ref = _levels(contrast)
        bound = f"{results.alpha:g}"
        if hit_count(rows, results.alpha):
            drafts.append(
                _draft(
                    f"{alt} differs from {ref}",
                    f"{{{{count(de.{contrast}, q<{bound}, up)}}}} proteins are increased and "
                    f"{{{{count(de.{contrast}, q<{bound}, down)}}}} proteins are decreased in {alt} "
                    f"compared with {ref} at q < {bound}.",
                    "differential",
                    "count",
                )
            )
        for row in _chosen(rows, "log2fc", results.alpha):
            entity = _name(row, rows)
            cell = f"de:{row.protein}|{contrast}"
            word = "increased" if row.log2fc > 0 else "decreased"
            text = (
                f"{entity} is {word} in {alt} compared with {ref} "
                f"(log2 fold change {{{{{cell}:log2fc|.2f}}}}, q = {{{{{cell}:q_value|.2g}}}})."
            )
            prediction = _prediction(entity, row.log2fc > 0, contrast, BULK_ASSAY, _needed(row))
            drafts.append(
                _draft(f"{entity} {word} in {alt}", text, "differential", "effect", (entity,), (prediction,))
            )
    return drafts + _detections(results)


def _needed(row: pd.Series) -> int | None:
    """Samples a group that another cohort needs, by the posterior sd; None where the table has none.

    A protein's own sd is of few samples, and among the hits more often too small than too large.
    """
    sd = float(row.get("sd_post", np.nan))
    return n_needed(abs(float(row["log2fc"])), sd) if np.isfinite(sd) and sd > 0 else None


def _detections(results: Results) -> list[HypothesisDraft]:
    drafts = []
    for contrast, rows in _by_contrast(results.own.frame("detection")):
        alt, ref = _levels(contrast)
        for row in _chosen(rows, "difference", results.alpha):
            entity = _name(row, rows)
            cell = f"detection:{row.protein}|{contrast}"
            word = "more" if row.difference > 0 else "less"
            text = (
                f"{entity} is detected {word} often in {alt} ({{{{{cell}:detected_alt|d}}}} of "
                f"{{{{{cell}:n_alt|d}}}} samples) than in {ref} ({{{{{cell}:detected_ref|d}}}} of "
                f"{{{{{cell}:n_ref|d}}}} samples), q = {{{{{cell}:q_value|.2g}}}}."
            )
            prediction = _prediction(entity, row.difference > 0, contrast, BULK_ASSAY, None)
            caveat = ("Detection is no abundance: it also depends on what else is in the sample.",)
            drafts.append(
                _draft(
                    f"{entity} detected {word} often in {alt}", text, "detection", "detection", (entity,),
                    (prediction,), caveat,
                )
            )  # fmt: skip
    return drafts


def pathways(results: Results) -> list[HypothesisDraft]:
    """A sentence a gene set that is shifted."""
    drafts = []
    for contrast, rows in _by_contrast(results.own.frame("gsea")):
        alt, ref = _levels(contrast)
        for row in _chosen(rows, "nes", results.alpha, most=15):
            cell = f"gsea:{row.term}|{contrast}"
            word = "higher" if row.nes > 0 else "lower"
            text = (
                f"The gene set {row.term} is {word} in {alt} than in {ref} (normalised enrichment score "
                f"{{{{{cell}:nes|.2f}}}}, q = {{{{{cell}:q_value|.2g}}}})."
            )
            prediction = _prediction(
                str(row.term), row.nes > 0, contrast, "a proteome of another cohort", None
            )
            drafts.append(
                _draft(
                    f"{row.term} {word} in {alt}", text, "pathway", "gsea", (str(row.term),), (prediction,)
                )
            )
    return drafts


def modules(results: Results) -> list[HypothesisDraft]:
    """A sentence a module and trait that go together."""
    return [
        _correlated("module_trait", row, "module", "trait", "r", "module", f"Module {row.module}")
        for row in _chosen(results.own.frame("module_trait"), "r", results.alpha, most=15)
    ]


def traits(results: Results) -> list[HypothesisDraft]:
    """A sentence a protein and trait that go together."""
    rows = results.own.frame("traits")
    return [
        _correlated("traits", row, "protein", "trait", "rho", "trait", _name(row, rows))
        for row in _chosen(rows, "rho", results.alpha, most=15)
    ]


def _correlated(
    table: str, row: pd.Series, left: str, right: str, estimate: str, kind: HypothesisKind, subject: str
) -> HypothesisDraft:
    cell = f"{table}:{row[left]}|{row[right]}"
    word = "positively" if row[estimate] > 0 else "negatively"
    text = (
        f"{subject} is correlated {word} with {row[right]} ({estimate} = {{{{{cell}:{estimate}|.2f}}}}, "
        f"q = {{{{{cell}:q_value|.2g}}}})."
    )
    prediction = Prediction(
        entity=str(row[left]),
        direction="positive" if row[estimate] > 0 else "negative",
        contrast=str(row[right]),
        assay=BULK_ASSAY,
        n_needed=correlation_n(float(row[estimate])),
    )
    entities = (str(row[left]) if kind == "module" else subject,)
    return _draft(f"{subject} goes with {row[right]}", text, kind, "correlation", entities, (prediction,))


def correlation_n(r: float) -> int | None:
    """Samples for power 0.8 at alpha 0.05 by Fisher's z: ((1.960 + 0.842) / atanh |r|)^2 + 3."""
    z = np.arctanh(min(abs(r), 1 - 1e-12))
    return None if z == 0 else int(np.ceil((2.8015852 / z) ** 2 + 3))


def survival(results: Results) -> list[HypothesisDraft]:
    """A sentence a protein whose hazard ratio is not 1."""
    rows = results.own.frame("cox")
    drafts = []
    for row in _chosen(rows, "coef", results.alpha, most=15):
        entity = _name(row, rows)
        cell = f"cox:{row.protein}"
        word = "shorter" if row.coef > 0 else "longer"
        text = (
            f"Higher {entity} goes with {word} survival (hazard ratio {{{{{cell}:hr|.2f}}}}, "
            f"q = {{{{{cell}:q_value|.2g}}}})."
        )
        prediction = _prediction(entity, row.coef > 0, "survival", BULK_ASSAY, None)
        drafts.append(_draft(f"{entity}: {word} survival", text, "survival", "cox", (entity,), (prediction,)))
    return drafts


def network(results: Results) -> list[HypothesisDraft]:
    """A sentence a contrast whose hits interact more than chance has it."""
    rows = results.own.frame("network_test")
    drafts = []
    for row in () if rows is None else rows[rows["p_value"] < results.alpha].itertuples(index=False):
        cell = f"network_test:{row.contrast}"
        alt, ref = _levels(str(row.contrast))
        text = (
            f"The proteins that differ between {alt} and {ref} are joined by {{{{{cell}:n_edges|d}}}} known "
            f"interactions, {{{{{cell}:fold|.1f}}}} times as many as genes of like degree "
            f"(p = {{{{{cell}:p_value|.2g}}}})."
        )
        drafts.append(_draft(f"Hits of {alt} interact", text, "network", "network", (str(row.contrast),)))
    return drafts


def composition(results: Results) -> list[HypothesisDraft]:
    """A sentence a population that becomes more or less frequent."""
    drafts = []
    for contrast, rows in _by_contrast(results.own.frame("composition")):
        alt, ref = _levels(contrast)
        for row in _chosen(rows, "difference", results.alpha):
            cell = f"composition:{row.population}|{contrast}"
            word = "more" if row.difference > 0 else "less"
            text = (
                f"{row.population} is {word} frequent in {alt} than in {ref} "
                f"(share {{{{{cell}:share_alt|.3f}}}} and {{{{{cell}:share_ref|.3f}}}}, "
                f"q = {{{{{cell}:q_value|.2g}}}})."
            )
            prediction = _prediction(str(row.population), row.difference > 0, contrast, CELL_ASSAY, None)
            entities = (str(row.population),)
            drafts.append(
                _draft(
                    f"{row.population}: {word} frequent",
                    text,
                    "composition",
                    "share",
                    entities,
                    (prediction,),
                )
            )
    return drafts


def state_de(results: Results) -> list[HypothesisDraft]:
    """A sentence a marker that responds in a population."""
    drafts = []
    for contrast, rows in _by_contrast(results.own.frame("state_de")):
        alt, ref = _levels(contrast)
        for row in _chosen(rows, "log2fc", results.alpha):
            cell = f"state_de:{row.population}|{row.protein}|{contrast}"
            word = "increased" if row.log2fc > 0 else "decreased"
            text = (
                f"In {row.population}, {row.protein} is {word} in {alt} compared with {ref} "
                f"(difference {{{{{cell}:log2fc|.2f}}}}, q = {{{{{cell}:q_value|.2g}}}})."
            )
            prediction = _prediction(str(row.protein), row.log2fc > 0, contrast, CELL_ASSAY, None)
            entities = (str(row.protein), str(row.population))
            title = f"{row.protein} {word} in {row.population}"
            drafts.append(_draft(title, text, "state", "state", entities, (prediction,)))
    return drafts


def subgroups(results: Results) -> list[HypothesisDraft]:
    """A sentence a column of the sample sheet that goes with the clusters."""
    rows = results.own.frame("cluster_association")
    drafts = []
    for row in () if rows is None else rows[rows["q_value"] < results.alpha].itertuples(index=False):
        cell = f"cluster_association:{row.column}"
        text = f"The clusters of samples differ in {row.column} (q = {{{{{cell}:q_value|.2g}}}})."
        drafts.append(
            _draft(f"Clusters differ in {row.column}", text, "subgroup", "cluster", (str(row.column),))
        )
    return drafts


READINGS: Mapping[str, Reading] = {
    "differential": differential,
    "pathways": pathways,
    "modules": modules,
    "traits": traits,
    "survival": survival,
    "network": network,
    "composition": composition,
    "state_de": state_de,
    "subgroups": subgroups,
}


def _by_contrast(table: pd.DataFrame | None) -> Iterator[tuple[str, pd.DataFrame]]:
    if table is not None and len(table):
        for contrast, rows in table.groupby("contrast", sort=True):
            yield str(contrast), rows


def _chosen(table: pd.DataFrame | None, estimate: str, alpha: float, most: int = MOST) -> Sequence[pd.Series]:
    """Rows with q < alpha: half of the places by the smallest q, half by the largest effect."""
    if table is None or not len(table):
        return []
    hits = table[table["q_value"] < alpha]
    by_q = hits.sort_values("q_value", kind="stable").head(most // 2 + most % 2)
    rest = hits.drop(by_q.index)
    by_effect = rest.loc[rest[estimate].abs().sort_values(ascending=False, kind="stable").index].head(
        most // 2
    )
    return [row for _, row in pd.concat([by_q, by_effect]).iterrows()]


def _name(row: pd.Series, rows: pd.DataFrame | None) -> str:
    """The gene where it names one protein alone, else the accession."""
    gene = str(row.get("gene", "") or "")
    if not gene or rows is None or rows.loc[rows["gene"] == gene, "protein"].nunique() > 1:
        return str(row["protein"])
    return gene


def _levels(contrast: str) -> tuple[str, str]:
    alt, _, ref = contrast.partition("_vs_")
    return alt, ref


def _prediction(entity: str, up: bool, contrast: str, assay: str, needed: int | None) -> Prediction:
    return Prediction(
        entity=entity, direction="up" if up else "down", contrast=contrast, assay=assay, n_needed=needed
    )


def _draft(
    title: str,
    text: str,
    kind: HypothesisKind,
    template: str,
    entities: tuple[str, ...] = (),
    predictions: tuple[Prediction, ...] = (),
    caveats: tuple[str, ...] = (),
) -> HypothesisDraft:
    return HypothesisDraft(
        title=title,
        text=text,
        kind=kind,
        template=template,
        entities=entities,
        predictions=predictions,
        caveats=caveats,
    )
