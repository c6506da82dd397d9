"""The figures of the report. Where a claim of the paper does not hold, the title says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from memoryformer import MemoryFormerConfig, flops
from memoryformer.reproduce.arms import ARMS, MEMORYFORMER, NARROW_FC, NARROW_TOTAL, TRANSFORMER
from memoryformer.reproduce.claims import CLAIMS
from memoryformer.reproduce.comparisons import stage
from tenfold import Estimate, Figure, Records
from tenfold.figures import INK, MUTED, PALETTE, save, style, title

if TYPE_CHECKING:
    from memoryformer.reproduce.experiment import ExperimentConfig

Metrics = Mapping[str, Estimate]

COLOURS = {
    MEMORYFORMER: PALETTE[0],
    TRANSFORMER: PALETTE[1],
    NARROW_FC: PALETTE[4],
    NARROW_TOTAL: PALETTE[3],
}
LABELS = {
    MEMORYFORMER: "MemoryFormer",
    TRANSFORMER: "transformer, same shape",
    NARROW_FC: "transformer, same FLOPs without attention",
    NARROW_TOTAL: "transformer, same FLOPs",
}
CLAIM = {claim.id: claim for claim in CLAIMS}
TABLE_4 = {1e-3: 19.86, 2e-3: 19.07, 3e-3: 18.82, 4e-3: 18.84}
TABLE_5 = {0: 19.89, 1: 19.26, 2: 18.82, 3: 18.54}
TABLE_3 = {4: 19.01, 8: 18.82, 10: 18.67}
BUCKET_LAYERS = {"qkv": "Q, K, V (one hash)", "layer1": "FFN, layer 1", "layer2": "FFN, layer 2"}


def figures(config: ExperimentConfig, metrics: Metrics, records: Records, folder: Path) -> list[Figure]:
    """Draw every figure that the run's records allow into `folder`."""
    with style():
        drawn = [
            four_axes(config, metrics, records, folder),
            rates(config, metrics, records, folder),
            figure_1(folder),
            figure_4(config, metrics, records, folder),
            decoding(config, metrics, records, folder),
        ]
        if config.ablations is not None:
            drawn.append(ablations(metrics, folder))
    return drawn


def four_axes(config: ExperimentConfig, metrics: Metrics, records: Records, folder: Path) -> Figure:
    """Loss against steps, FLOPs, seconds and parameters, every arm at its own best rate."""
    canvas = Canvas(figsize=(10, 7.6), layout="constrained")
    (by_steps, by_flops), (by_seconds, by_size) = canvas.subplots(2, 2, sharey=True)
    ends = []
    for arm in ARMS:
        rate = metrics[f"best_rate_{_name(arm)}"].mean
        curves = list(records.curves(arm, stage=stage(rate)).values())
        loss = np.array([curve["valid_loss"] for curve in curves])
        tokens = np.array(curves[0]["tokens"])
        seconds = np.mean([curve["seconds"] for curve in curves], axis=0)
        work = tokens * metrics[f"training_flops_a_token_{_name(arm)}"].mean
        for axes, x in ((by_steps, curves[0]["step"]), (by_flops, work), (by_seconds, seconds)):
            axes.plot(x, loss.mean(0), color=COLOURS[arm], label=f"{LABELS[arm]} (rate {rate:g})")
            axes.fill_between(x, loss.min(0), loss.max(0), color=COLOURS[arm], alpha=0.15, linewidth=0)
        size = metrics[f"parameters_{_name(arm)}"].mean
        by_size.plot([size] * len(loss), loss[:, -1], "o", color=COLOURS[arm], alpha=0.7)
        ends.append(loss[:, -1].mean())
    by_steps.set(xlabel="steps", ylabel="validation loss (nats a token)")
    by_flops.set(xlabel="FLOPs of training so far", xscale="log")
    by_seconds.set(xlabel="seconds of training, one CPU thread", ylabel="validation loss (nats a token)")
    by_size.set(xlabel="parameters, with embeddings", xscale="log")
    by_steps.set_ylim(min(ends) - 0.1, max(ends) + 1.2)
    canvas.legend(*by_steps.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    says = title(
        CLAIM["C2b"],
        metrics,
        "Both at their best rate, MemoryFormer is at least as good as the same shape at equal steps",
        "Both at their best rate, MemoryFormer is not as good as the same shape (C2b did not hold)",
        "Four ways to be equal",
    )
    canvas.suptitle(says, x=0.01, ha="left", fontsize=12)
    caption = (
        "The same runs at equal steps, FLOPs, seconds and parameters, each arm at its own best rate; "
        "lines: means over seeds, bands: their range, dots: seeds at the end."
    )
    return Figure(save(canvas, folder, "four_axes"), caption)


def rates(config: ExperimentConfig, metrics: Metrics, records: Records, folder: Path) -> Figure:
    """The final loss against the learning rate, beside the paper's Table 4."""
    canvas = Canvas(figsize=(9, 4.3), layout="constrained")
    ours, paper = canvas.subplots(1, 2)
    for arm in ARMS:
        points: dict[float, list[float]] = {}
        for trial, result in records.results().items():
            if trial.arm == arm and trial.stage.startswith("lr "):
                points.setdefault(trial.settings["learning_rate"], []).append(result["losses"]["valid"])
        swept = sorted(points)
        means = [np.mean(points[rate]) for rate in swept]
        ours.plot(swept, means, "o-", color=COLOURS[arm], label=LABELS[arm], markersize=4)
        for rate in swept:
            ours.plot([rate] * len(points[rate]), points[rate], ".", color=COLOURS[arm], alpha=0.6)
    ours.set(xlabel="learning rate", ylabel="validation loss (nats a token)", xscale="log")
    ours.set_title("here, every arm")
    paper.plot(list(TABLE_4), list(TABLE_4.values()), "o-", color=COLOURS[MEMORYFORMER])
    paper.set(xlabel="learning rate", ylabel="perplexity on the Pile", xscale="log")
    paper.set_xticks(list(TABLE_4), [f"{rate:g}" for rate in TABLE_4])
    paper.minorticks_off()
    paper.set_title("the paper's Table 4, MF-tiny alone")
    canvas.legend(*ours.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    says = title(
        CLAIM["C4"],
        metrics,
        "MemoryFormer is better at 3 times the default rate",
        "MemoryFormer is not better at 3 times the default rate (C4 did not hold)",
        "Learning rates",
    )
    if metrics[f"best_rate_{TRANSFORMER}"].mean > config.default_rate:
        says += "; the transformer, too, is better above its default"
    canvas.suptitle(says, x=0.01, ha="left", fontsize=12)
    caption = "Final loss against the learning rate; dots: seeds. The paper swept MemoryFormer alone."
    return Figure(save(canvas, folder, "rates"), caption)


def figure_1(folder: Path) -> Figure:
    """FLOPs of a block against its width, at 2,048 tokens: the paper's formula and the exact count."""
    canvas = Canvas(figsize=(8, 3.8), layout="constrained")
    absolute, share = canvas.subplots(1, 2)
    widths = np.arange(512, 8193, 512)
    configs = [MemoryFormerConfig(hidden_size=int(width), num_attention_heads=8) for width in widths]
    dense = np.array([flops.count(config, architecture="transformer")["total"] for config in configs])
    formula = np.array([flops.count(config)["total"] for config in configs])
    exact = np.array([flops.count(config, convention="exact")["total"] for config in configs])
    attention = np.array([flops.count(config)["attention"] for config in configs])
    lines = (
        (dense, "transformer", PALETTE[1], "-"),
        (formula, "MemoryFormer, the paper's 6 K s d", PALETTE[0], "--"),
        (exact, "MemoryFormer, exact", PALETTE[0], "-"),
        (attention, "attention alone, in both", MUTED, ":"),
    )
    for values, label, colour, line in lines:
        absolute.plot(widths, values / 1e9, line, color=colour, label=label)
        if values is not dense:
            share.plot(widths, 100 * values / dense, line, color=colour)
    at = widths == 2048
    share.plot([2048], 100 * exact[at] / dense[at], "o", color=INK)
    share.annotate(
        "19% (the paper's number)",
        (2048, float(100 * exact[at][0] / dense[at][0])),
        xytext=(6, 8),
        textcoords="offset points",
        fontsize=9,
    )
    absolute.set(xlabel="width d", ylabel="FLOPs of a block (G multiply-adds)")
    share.set(xlabel="width d", ylabel="share of the transformer's (%)", ylim=(0, 50))
    absolute.legend(fontsize=8.5)
    canvas.suptitle("Figure 1 of the paper, redrawn: FLOPs are not time", x=0.01, ha="left", fontsize=12)
    caption = (
        "FLOPs of one block at 2,048 tokens and tau 8, as the paper counts look-ups (6 K s d) and as the "
        "modules do them. A look-up re-uses nothing, so it is bound by memory, and a matrix product is not."
    )
    return Figure(save(canvas, folder, "figure_1"), caption)


def figure_4(config: ExperimentConfig, metrics: Metrics, records: Records, folder: Path) -> Figure:
    """How often each row of the first and last tables of block 1 was fetched, over its fair share."""
    use = next(result["buckets"] for result in records.results().values() if "buckets" in result)
    canvas = Canvas(figsize=(10, 5.2), layout="constrained")
    panels = canvas.subplots(2, len(BUCKET_LAYERS), sharey=True)
    for column, (layer, label) in enumerate(BUCKET_LAYERS.items()):
        stats = use[f"block1_{layer}"]
        for row, which in enumerate(("first", "last")):
            axes: Axes = panels[row][column]
            counts = np.array(stats[which])
            axes.bar(np.arange(len(counts)), counts * len(counts) / counts.sum(), 1.0, color=PALETTE[0])
            axes.axhline(1, color=PALETTE[1], linewidth=1)
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_title(f"{label}: {which} table", fontsize=10)
            axes.margins(x=0)
        panels[1][column].set_xlabel("row")
        told = f"entropy/tau {stats['entropy']:.2f}, dead {100 * stats['dead_rows']:.0f}%"
        panels[0][column].annotate(
            told, (0.98, 0.92), xycoords="axes fraction", ha="right", fontsize=8.5, color=INK
        )
    for row in panels:
        row[0].set_ylabel("fetched / fair share")
    says = title(
        CLAIM["C8"],
        metrics,
        "Figure 4 of the paper, redrawn: buckets are used evenly",
        "Figure 4 of the paper, redrawn: buckets are far from even (C8 did not hold)",
        "Figure 4 of the paper, redrawn",
    )
    canvas.suptitle(says, x=0.01, ha="left", fontsize=12)
    caption = (
        f"Rows of the tables of block 1, trained at 3 times the default rate, first seed: how often "
        f"{int(sum(use['block1_qkv']['first'])):,} held-back tokens fetched each, over its fair share. "
        "Text in the panels: the mean over all tables of the layer."
    )
    return Figure(save(canvas, folder, "figure_4"), caption)


def decoding(config: ExperimentConfig, metrics: Metrics, records: Records, folder: Path) -> Figure:
    """Tokens a second, one token at a time on one thread."""
    (speeds,) = [result["speeds"] for trial, result in records.results().items() if trial.stage == "decoding"]
    canvas = Canvas(figsize=(8, 0.55 * len(speeds) + 1.4), layout="constrained")
    axes = canvas.subplots()
    for place, (way, rounds) in enumerate(speeds.items()):
        colour = PALETTE[1] if way.startswith("transformer") else PALETTE[0]
        axes.barh(place, np.median(rounds), color=colour, alpha=0.85)
        axes.plot(rounds, [place] * len(rounds), ".", color=INK, markersize=3)
        axes.annotate(
            f"{np.median(rounds):,.0f}",
            (max(rounds), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(speeds)), list(speeds))
    axes.invert_yaxis()
    axes.set(xlabel="tokens a second, batch 1, one thread")
    axes.grid(visible=False, axis="y")
    shape = config.decoding
    axes.set_title(
        f"Decoding: d {shape.hidden_size}, {shape.num_hidden_layers} layers, vocabulary {shape.vocab_size:,}"
    )
    caption = (
        f"{shape.new_tokens} tokens one after another, rounds of all ways in turn (dots), median (bar); "
        "untrained weights, one shape. `compile_decode` and the lean loop spare transformers' modules."
    )
    return Figure(save(canvas, folder, "decoding"), caption)


def ablations(metrics: Metrics, folder: Path) -> Figure:
    """The paper's Tables 3 and 5 beside ours; perplexities there, losses here, as differences in nats."""
    canvas = Canvas(figsize=(9, 3.6), layout="constrained")
    by_bits, by_tau = canvas.subplots(1, 2)
    base = metrics[f"ablation_loss_{MEMORYFORMER}"].samples[0]
    bits = {extra: metrics.get(f"ablation_loss_bits_{extra}") for extra in (0, 1, 3)}
    ours = {2: 0.0} | {extra: found.samples[0] - base for extra, found in bits.items() if found is not None}
    _beside(by_bits, ours, {k: float(np.log(v / TABLE_5[2])) for k, v in TABLE_5.items()})
    by_bits.set(xlabel="more bits between the layers", ylabel="loss, minus that of the setting (nats)")
    tau = metrics.get("ablation_loss_tau_4")
    shown = {8: 0.0} | ({} if tau is None else {4: tau.samples[0] - base})
    _beside(by_tau, shown, {k: float(np.log(v / TABLE_3[8])) for k, v in TABLE_3.items()})
    by_tau.set(xlabel="bits of a table (tau)")
    spread = metrics["spread_ablations"].mean
    for axes in (by_bits, by_tau):
        axes.axhspan(-spread, spread, color=MUTED, alpha=0.12, linewidth=0)
    by_bits.legend()
    ordered = CLAIM["C5"].holds(metrics) and CLAIM["C6"].holds(metrics)
    says = "in the paper's order" if ordered else "not in the paper's order (C5, C6)"
    canvas.suptitle(f"Tables 5 and 3 of the paper, redrawn: {says}", x=0.01, ha="left", fontsize=12)
    caption = (
        "Loss beside that of the paper's setting (tau 8, 2 more bits); the paper's as ln of ratios of its "
        "perplexities. Band: the spread of our three seeds of the setting; the others have one seed."
    )
    return Figure(save(canvas, folder, "ablations"), caption)


def _beside(axes: Axes, ours: Mapping[int, float], paper: Mapping[int, float]) -> None:
    for points, label, colour, line in (
        (ours, "here", PALETTE[0], "o-"),
        (paper, "the paper", PALETTE[1], "s--"),
    ):
        places: Sequence[int] = sorted(points)
        axes.plot(places, [points[place] for place in places], line, color=colour, label=label, markersize=5)
    axes.set_xticks(sorted({*ours, *paper}))


def _name(arm: str) -> str:
    return arm.replace("-", "_")
