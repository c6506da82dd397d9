"""What `paper-check` shows: every row, every statement, and the numbers about the questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from medxpertqa.paper.audit import Row
from medxpertqa.paper.claims import Verdict
from medxpertqa.paper.question_counts import CountedNumber
from medxpertqa.reporting.tables import Table, p_text


def paper_tables(
    rows: Sequence[Row], verdicts: Sequence[Verdict], numbers: Sequence[CountedNumber] = ()
) -> list[Table]:
    """The tables for a terminal."""
    tables = [
        Table(
            "Tables 4 and 5: right answers behind the printed percentages",
            ("model", "table", "R Text", "U Text", "R MM", "U MM", ""),
            tuple(_row(row) for row in rows),
            "Whole counts that give every column of the row; R Reasoning, U Understanding.",
        ),
        Table(
            "What the paper says of them",
            ("statement", "model", "subset", "value [95 % CI]", "p", "verdict"),
            tuple(_verdict(found) for found in verdicts),
            "Percentage points; samples taken as independent, which is conservative.",
        ),
    ]
    if numbers:
        counted = tuple(
            (
                f"{n.subset} {n.name}",
                f"{n.printed:g}",
                f"{round(n.counted, 2):g}",
                "equal" if n.equal else "differs",
            )
            for n in numbers
        )
        tables.append(Table("The questions", ("", "paper", "counted", ""), counted))
    return tables


def paper_as_json(
    rows: Sequence[Row], verdicts: Sequence[Verdict], numbers: Sequence[CountedNumber] = ()
) -> dict[str, Any]:
    """The same for a program."""
    return {
        "tables": [
            asdict(row) | {"consistent": row.consistent, "counts": row.counts and list(row.counts)}
            for row in rows
        ],
        "claims": [asdict(verdict) for verdict in verdicts],
        "questions": [asdict(number) | {"equal": number.equal} for number in numbers],
    }


def _row(row: Row) -> tuple[str, ...]:
    if row.counts:
        cells = [f"{count} of {n}" for count, n in zip(row.counts, row.sizes, strict=True)]
        return (row.model, str(row.table), *cells, *[""] * (4 - len(cells)), "one solution")
    problem = "several solutions" if row.consistent else "impossible"
    for repair in row.repairs:
        problem += f"; possible with {repair.column} {repair.percent:.2f} ({repair.count} of {repair.n})"
    return (row.model, str(row.table), "", "", "", "", problem)


def _verdict(found: Verdict) -> tuple[str, ...]:
    value = f"{found.value:.2f} [{found.ci.low:.2f}, {found.ci.high:.2f}]"
    return (found.statement, found.model, found.subset, value, p_text(found.p_value), found.verdict)
