"""What the command shows: tables, progress, colours."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from toedit.diffing import Change


def tell(message: str) -> None:
    """A message to stderr."""
    typer.echo(message, err=True)


def show(value: Any, as_json: bool, table: Callable[[], Any]) -> None:
    """The value as JSON, or the table."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        console().print(table())


def console() -> Console:
    """Standard output; wide where it is no terminal, so that no line is broken."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table; the columns after the first are numbers or short words."""
    drawn = Table(*head, show_header=any(head))
    for row in rows:
        drawn.add_row(*row)
    return drawn


def change_line(change: Change) -> Text:
    """A change in one line, marked as `git diff --word-diff` does and coloured on a terminal."""
    line = Text("  ")
    line.append(_flat(change.before))
    if change.old:
        line.append(f"[-{_flat(change.old)}-]", style="red")
    if change.new:
        line.append(f"{{+{_flat(change.new)}+}}", style="green")
    return line.append(_flat(change.after))


def _flat(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left; nothing where stderr is no terminal."""
    stderr = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
