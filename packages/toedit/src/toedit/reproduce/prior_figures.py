"""What the prior says of text: probabilities, perplexities, and the edits themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from tenfold import Estimate, Figure
from tenfold.figures import INK, PALETTE, save
from toedit.statistics import BINS, EditStats

TABLE_6 = (0.347, 0.081, 0.054, 0.044, 0.038, 0.036, 0.037, 0.040, 0.052, 0.271)
TABLE_15 = (0.1250, 0.1176, 0.1108)
SHOWN = 10

Corpora = Mapping[str, Mapping[str, Any]]


def histograms(corpora: Corpora, metrics: Mapping[str, Estimate], folder: Path) -> Figure:
    """The shares of ten bins of probability, beside the paper's Table 6."""
    canvas = Canvas(figsize=(1 + 2.1 * (len(corpora) + 1), 3.3), layout="constrained")
    panels = np.ravel(canvas.subplots(1, len(corpora) + 1, sharey=True))
    shares = {"the paper, biomedicine": TABLE_6}
    for name, read in corpora.items():
        counts = np.array(EditStats.from_dict(read["stats"][0]).histogram)
        shares[name] = tuple(counts / counts.sum())
    for axes, (name, values) in zip(panels, shares.items(), strict=True):
        colour = PALETTE[1] if values is TABLE_6 else PALETTE[0]
        axes.bar((np.arange(BINS) + 0.5) / BINS, 100 * np.array(values), 0.09, color=colour)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("P of the token")
    panels[0].set_ylabel("% of tokens")
    leads = [
        metrics[f"{which}_bin_lead_{where}"].mean
        for which in ("first", "last")
        for where in ("docs", "outside")
        if f"{which}_bin_lead_{where}" in metrics
    ]
    says = "U-shaped in every corpus" if min(leads) > 0 else "not U-shaped in every corpus"
    canvas.suptitle(
        f"How probable the prior finds the tokens of human text: {says}", x=0.01, ha="left", fontsize=12
    )
    caption = "Shares of tokens by their probability under SmolLM2-135M, and as the paper's Table 6 has it."
    return Figure(save(canvas, folder, "probabilities"), caption)


def candidate_shares(corpora: Corpora, folder: Path) -> Figure:
    """Candidates and changes a token, generation after generation, beside the paper's Table 15."""
    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    candidates, changes = canvas.subplots(1, 2)
    for colour, (name, read) in zip(PALETTE, corpora.items(), strict=False):
        stats = [EditStats.from_dict(values) for values in read["stats"]]
        n = range(1, len(stats) + 1)
        candidates.plot(n, [100 * one.candidate_rate for one in stats], "o-", color=colour, label=name)
        changes.plot(n, [100 * one.change_rate for one in stats], "o-", color=colour, label=name)
    candidates.plot([1, 2, 3], [100 * share for share in TABLE_15], "s--", color=INK, label="the paper")
    candidates.set(xlabel="generation", ylabel="% of tokens that are candidates")
    changes.set(xlabel="generation", ylabel="% of tokens that changed")
    for axes in (candidates, changes):
        axes.set_xticks([1, 2, 3])
        axes.set_ylim(bottom=0)
    canvas.legend(*candidates.get_legend_handles_labels(), loc="outside right center")
    canvas.suptitle("Candidates are not changes", x=0.01, ha="left", fontsize=12)
    caption = (
        "Left: tokens with P >= 0.99, which the paper counts as edited. Right: tokens that are another one "
        "afterwards, drawn from the top 8 at temperature 1.5."
    )
    return Figure(save(canvas, folder, "candidates"), caption)


def perplexities(corpora: Corpora, synthetic: list[float], folder: Path) -> Figure:
    """The distribution of documents' perplexities, human and synthetic."""
    canvas = Canvas(figsize=(8, 3.6), layout="constrained")
    axes = canvas.subplots()
    edges = np.geomspace(1, 1000, 40).tolist()
    for colour, (name, values) in zip(
        PALETTE, {"human (docs)": corpora["docs"]["ppl"], "synthetic": synthetic}.items(), strict=False
    ):
        shares = np.full(len(values), 100 / max(1, len(values)))
        axes.hist(np.clip(values, 1, 1000), edges, weights=shares, color=colour, alpha=0.55, label=name)
    axes.set(xscale="log", xlabel="perplexity of a document under SmolLM2-135M", ylabel="% of documents")
    axes.legend()
    axes.set_title("How hard the documents are for the prior")
    caption = (
        "Human documentation, and the synthetic text that T4 mixes in. A tiny model writes text that a "
        "larger one finds strange; the paper's narrow range is that of text by large models."
    )
    return Figure(save(canvas, folder, "perplexities"), caption)


def edit_examples(corpora: Corpora, folder: Path) -> list[Figure]:
    """A table of real changes: what stood there, and what was drawn."""
    chosen = [(name, example) for name, read in corpora.items() for example in read["examples"][:4]][:SHOWN]
    if not chosen:
        return []
    canvas = Canvas(figsize=(10, 0.42 * len(chosen) + 0.8), layout="constrained")
    axes = canvas.subplots()
    axes.axis("off")
    rows = [
        [
            name,
            _line(example["before"][-32:]),
            _line(example["old"]),
            _line(example["new"]),
            _line(example["after"][:32]),
        ]
        for name, example in chosen
    ]
    table = axes.table(
        rows,
        colLabels=["corpus", "before", "old", "new", "after"],
        colWidths=[0.14, 0.33, 0.1, 0.1, 0.33],
        cellLoc="left",
        loc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8.5)
    table.scale(1, 1.25)
    axes.set_title("Changes that were made")
    caption = "The first changes of each corpus. Editing arithmetic or code changes facts: see `protect`."
    return [Figure(save(canvas, folder, "edits"), caption)]


def _line(text: str) -> str:
    """A text in one line, of characters that can be drawn, none of which matplotlib reads as mathematics."""
    drawn = (char if char.isprintable() else "·" for char in text.replace("\n", "↵"))
    return "".join(drawn).replace("$", r"\$")
