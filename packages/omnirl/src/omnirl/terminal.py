"""What the command shows: messages, tables, JSON, progress."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def tell(message: str) -> None:
    """A message to stderr."""
    typer.echo(f"omnirl: {message}", err=True)


def show(value: Any, as_json: bool, rows: Iterable[Sequence[str]] = (), head: Sequence[str] = ()) -> None:
    """The value as JSON; else the rows as a table."""
    if as_json:
        typer.echo(json.dumps(_plain(value), indent=2, allow_nan=False))
        return
    table = Table(*head, show_header=bool(head))
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _plain(value: Any) -> Any:
    """What JSON can say: numbers of numpy as Python's, those that are not finite as null."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def console() -> Console:
    """Standard output; wide where it is no terminal, so that no line is broken."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


@contextmanager
def bar(words: str, total: int) -> Iterator[Any]:
    """A function of how much is done, which moves a bar on a terminal and is silent elsewhere."""
    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    err = Console(file=sys.stderr)
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(words, total=total)
        yield lambda done, note="": progress.update(
            task, completed=done, description=f"{words} {note}".strip()
        )
