"""The tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from medxpertqa.reporting.tables import FOOTER, Table


def show(tables: Iterable[Table], remarks: Iterable[str] = (), console: Console | None = None) -> None:
    """Print the tables of runs, remarks and the footer; all text as it is, never as markup."""
    console = console or standard_output()
    show_tables(tables, console)
    for remark in remarks:
        console.print(Text(f"Note: {remark}"))
    console.print(Text(FOOTER, style="dim"))


def show_tables(tables: Iterable[Table], console: Console | None = None) -> None:
    """Print tables alone."""
    console = console or standard_output()
    for table in tables:
        shown = RichTable(title=Text(table.title), title_justify="left", title_style="bold")
        for place, name in enumerate(table.head):
            shown.add_column(Text(name), overflow="fold", justify="left" if place == 0 else "right")
        for row in table.rows:
            shown.add_row(*map(Text, row))
        console.print(shown)
        if table.note:
            console.print(Text(table.note, style="dim"))
        console.print()


def standard_output() -> Console:
    """Standard output; wide where it is no terminal, so that no cell is broken."""
    return Console(width=None if sys.stdout.isatty() else 240)
