"""A model's row in the form of the paper's Table 4: its runs on Text and MM, pooled question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medxpertqa.paper.tables import CELLS, COLUMNS
from medxpertqa.results import Record, Results
from medxpertqa.scores import Cell, Errors, Scores, places_that_count

_CELL_OF: Mapping[tuple[object, object], str] = {
    ("Text", "Reasoning"): "text_reasoning",
    ("Text", "Understanding"): "text_understanding",
    ("MM", "Reasoning"): "mm_reasoning",
    ("MM", "Understanding"): "mm_understanding",
}


@dataclass(frozen=True)
class PooledRow:
    """The accuracies of one model, asked and parsed in one way, by column of Table 4.

    A column is there if each of the cells that it pools (`medxpertqa.paper.tables.COLUMNS`) has a question.
    """

    name: str
    protocol: str
    parser: str
    columns: Mapping[str, Cell]


def pooled_rows(runs: Sequence[Results], *, errors: Errors = "wrong", seed: int = 0) -> list[PooledRow]:
    """Pool the runs of each model, protocol and parser: every question counts once, as AvgR, AvgU and Avg do.

    A run on questions that the row has already begins another row. `errors` as for `summarize`. Raises
    `MedXpertQAError` for a run whose every reply is an error where those do not count.
    """
    rows: list[tuple[tuple[str, str, str], list[Record], list[bool]]] = []
    for run in runs:
        kept, rights = places_that_count(run, errors), run.correct()
        key = run.name, run.protocol, run.parser
        ids = {record.id for record in run.records}
        row = next((r for r in rows if r[0] == key and ids.isdisjoint(record.id for record in r[1])), None)
        if row is None:
            row = key, [], []
            rows.append(row)
        row[1].extend(run.records[place] for place in kept)
        row[2].extend(rights[place] for place in kept)
    return [PooledRow(*key, _columns(Scores(records, rights, seed))) for key, records, rights in rows]


def _columns(scores: Scores) -> dict[str, Cell]:
    ids: dict[str, list[str]] = {cell: [] for cell in CELLS}
    for name, record in scores.records.items():
        about = record.attributes.get("subset"), record.attributes.get("question_type")
        if cell := _CELL_OF.get(about):
            ids[cell].append(name)
    pooled = {column: [ids[CELLS[place]] for place in places] for column, places in COLUMNS.items()}
    return {
        column: scores.cell(sorted(name for cell in cells for name in cell))
        for column, cells in pooled.items()
        if all(cells)
    }
