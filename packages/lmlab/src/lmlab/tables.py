"""What the `lmlab` command shows, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

Row = dict[str, Any]


def corpora(rows: Sequence[Row]) -> Table:
    """Names, splits and descriptions."""
    table = Table("corpus", "splits", "text")
    for row in rows:
        table.add_row(row["name"], ", ".join(row["splits"]), row["description"])
    return table


def statistics(rows: Sequence[Row]) -> Table:
    """A line for each split, or for each source in it."""
    table = _table("corpus", "split", "source", numbers=("documents", "bytes", "tokens"))
    for row in rows:
        counts = (f"{row[key]:,}" for key in ("documents", "bytes", "tokens"))
        table.add_row(row["corpus"], row["split"], row["source"], *counts)
    return table


def training(metrics: Row) -> Group:
    """Size, speed and the measures of the finished model."""
    table = _table("training", numbers=("",))
    table.add_row("parameters", f"{metrics['parameters']:,}")
    table.add_row("without embeddings", f"{metrics['parameters_without_embeddings']:,}")
    table.add_row("forward FLOPs a token", f"{metrics['forward_flops_per_token']:,.0f}")
    table.add_row("tokens a second", f"{metrics['tokens_per_second']:,.0f}")
    table.add_row("seconds in training steps", f"{metrics['seconds']:,.1f}")
    return Group(table, evaluation(metrics))


def evaluation(measured: Row) -> Group:
    """Perplexities of each split, whole and by length, and passkey retrieval."""
    text = _table("split", numbers=("context", "perplexity", "bits a byte", "tokens"))
    for split, score in measured["splits"].items():
        text.add_row(split, "block", *_perplexity(score))
        for length, at_length in score["by_length"].items():
            text.add_row("", length, *_perplexity(at_length))
    tables = [text] if measured["splits"] else []
    if measured["passkey"]:
        keys = _table("passkey", numbers=("depth", "found", "mean rank", "of"))
        for score in measured["passkey"]:
            keys.add_row(
                f"{score['length']} tokens",
                f"{score['depth']:g}",
                f"{score['accuracy']:.0%}",
                f"{score['mean_rank']:.1f}",
                str(score["candidates"]),
            )
        tables.append(keys)
    return Group(*tables)


def _perplexity(score: Row) -> tuple[str, str, str]:
    bits = score["bits_per_byte"]
    return f"{score['ppl']:.2f}", "" if bits is None else f"{bits:.3f}", f"{score['tokens']:,}"


def _table(*names: str, numbers: Sequence[str]) -> Table:
    table = Table(*names)
    for name in numbers:
        table.add_column(name, justify="right")
    return table
