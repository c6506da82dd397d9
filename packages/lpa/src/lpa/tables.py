"""What the `lpa` command prints where it is not asked for JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def training(metrics: Any) -> Table:
    """What training measured: size, speed, perplexity of each split."""
    table = Table("training", "")
    table.add_row("parameters", f"{metrics['parameters']:,}")
    table.add_row("tokens a second", f"{metrics['tokens_per_second']:,.0f}")
    for split, score in metrics["splits"].items():
        table.add_row(f"perplexity, {split}", f"{score['ppl']:.2f}")
    return table


def sweep(rows: Any) -> Table:
    """A row a rank."""
    table = Table("rank", "parameters outside embeddings", "validation perplexity", "tokens a second")
    for row in rows:
        numbers = (f"{row['parameters_without_embeddings']:,}", f"{row['ppl']:.2f}")
        table.add_row(str(row["rank"] or "dense"), *numbers, f"{row['tokens_per_second']:,.0f}")
    return table


def evaluation(measured: Any) -> Table:
    """Perplexity and bits per byte of each split, then the benchmarks."""
    table = Table("measure", "value")
    for split, score in measured["splits"].items():
        table.add_row(f"perplexity, {split}", f"{score['ppl']:.2f}")
        if score["bits_per_byte"] is not None:
            table.add_row(f"bits per byte, {split}", f"{score['bits_per_byte']:.3f}")
    for task, metrics in measured["tasks"].items():
        for metric, value in metrics.items():
            table.add_row(f"{task}, {metric}", f"{value:.4f}")
    return table
