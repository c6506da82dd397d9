"""The tables of a report, as text: the terminal and the page show the same ones.

Nothing in them is the text of a question or of a reply. Names of models and of other harnesses' protocols are
not trusted: control characters and those that turn the direction of writing are shown as their code.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from medxpertqa.errors import MedXpertQAWarning
from medxpertqa.paper.tables import COLUMNS
from medxpertqa.parsing import ParserName
from medxpertqa.pooled_rows import pooled_rows
from medxpertqa.results import Results
from medxpertqa.scores import SMALL, Cell
from medxpertqa.shortcuts import find_shortcuts
from medxpertqa.stats import Interval
from medxpertqa.summaries import Comparison, PairedCell, Summary, compare_all

FOOTER = (
    "Scores on multiple-choice questions do not show that a model is ready for clinical use. "
    "This report is no medical device."
)
TITLES = {
    "subset": "By subset",
    "question_type": "By type of question",
    "medical_task": "By task",
    "body_system": "By body system",
}
SHOWN_IDS = 20


@dataclass(frozen=True)
class Table:
    """A heading, the columns, rows of text, and a remark under it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def visible(text: str) -> str:
    """The text with characters that a screen would not show, or would be turned by, as \\uXXXX."""
    return "".join(
        f"\\u{ord(sign):04x}" if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else sign
        for sign in text
    )


def percent(share: float) -> str:
    """A share as a percentage with two decimals, as the paper's tables."""
    return f"{100 * share:.2f}"


def with_ci(accuracy: float, ci: Interval) -> str:
    """An accuracy and its interval, in percent."""
    return f"{percent(accuracy)} [{percent(ci.low)}, {percent(ci.high)}]"


def p_text(p_value: float) -> str:
    """A p-value; below 1e-4 only that."""
    return f"{p_value:.4f}" if p_value >= 1e-4 else "< 0.0001"


def labels(summaries: Sequence[Summary]) -> list[str]:
    """A name for each run: the model's, with protocol, parser and subset where it is not its alone."""
    names = [visible(summary.name or f"run {place}") for place, summary in enumerate(summaries, 1)]
    about = [(s.protocol, s.parser, *s.by.get("subset", ())) for s in summaries]
    return [
        f"{name} ({', '.join(map(visible, words))})" if names.count(name) > 1 else name
        for name, words in zip(names, about, strict=True)
    ]


def report_tables(runs: Sequence[Results], summaries: Sequence[Summary]) -> tuple[list[Table], list[str]]:
    """All tables of one or several runs, whose errors count alike, and what has to be said about them.

    `summaries` are of these runs, in their order, each by the parser that is to count.
    """
    by = [cast("ParserName", summary.parser) for summary in summaries]
    runs = [replace(run, parser=parser) for run, parser in zip(runs, by, strict=True)]
    tables = [_overview(summaries), _parsers(summaries), *_pooled(runs, summaries), *_cells(summaries)]
    tables += _position(summaries)
    remarks = _remarks(summaries)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MedXpertQAWarning)
        pairs = compare_all(runs, errors=summaries[0].errors)
    remarks += dict.fromkeys(str(warning.message) for warning in caught)
    tables += _shortcuts(runs, summaries)
    if pairs:
        tables.append(comparison_table(pairs))
    return tables, [visible(remark) for remark in remarks]


def comparison_table(pairs: Sequence[tuple[Comparison, float]]) -> Table:
    """Every pair: the difference in percentage points, who alone was right how often, and the tests."""
    rows = tuple(
        (
            visible(" - ".join(pair.names)),
            str(pair.n),
            with_ci(pair.difference, pair.ci),
            str(pair.only_a),
            str(pair.only_b),
            p_text(pair.p_value),
            p_text(adjusted),
        )
        for pair, adjusted in pairs
    )
    head = (
        "pair",
        "questions",
        "difference [95 % CI]",
        "only first",
        "only second",
        "p (McNemar)",
        "p (Holm)",
    )
    return Table(
        "Comparison on the same questions", head, rows, "Percentage points; paired bootstrap interval."
    )


def difference_tables(pair: Comparison) -> list[Table]:
    """The difference of two runs cell by cell."""
    head = ("", "questions", "difference [95 % CI]", "p (McNemar)")
    tables = []
    for key, cells in pair.by.items():
        rows = tuple(
            (
                visible(value),
                f"{cell.n}{'*' if cell.small else ''}",
                with_ci(cell.difference, cell.ci),
                p_text(cell.p_value),
            )
            for value, cell in cells.items()
        )
        notes = ["The p-values of cells are not adjusted.", _small_note(cells.values())]
        if key == "question_type" and pair.interaction:
            found = pair.interaction
            value = f"{with_ci(found.difference, found.ci)}, p {p_text(found.p_value)}"
            notes.append(f"Interaction, Reasoning less Understanding: {value} (Wald).")
        tables.append(Table("Difference " + TITLES[key].lower(), head, rows, " ".join(filter(None, notes))))
    return tables


def _overview(summaries: Sequence[Summary]) -> Table:
    counts = ("no letter", "errors", "cut off", "refused", "empty", "missing")
    about = ("model", "protocol", "parser", "questions", "right", "accuracy [95 % CI]")
    head = (*about, *counts, "tokens in", "tokens out", "cost, US$")
    rows = tuple(
        (
            name,
            visible(summary.protocol or "unknown"),
            summary.parser,
            str(summary.n),
            _right(summary),
            with_ci(summary.accuracy, summary.ci),
            *(str(count) for count in (summary.n_no_answer, summary.n_errors, summary.n_truncated)),
            *(str(count) for count in (summary.n_filtered, summary.n_empty, summary.n_missing)),
            f"{summary.input_tokens:,}",
            f"{summary.output_tokens:,}",
            "unknown" if summary.cost is None else f"{summary.cost:.2f}",
        )
        for name, summary in zip(labels(summaries), summaries, strict=True)
    )
    counts_as = "counts as wrong, as officially" if summaries[0].errors == "wrong" else "does not count"
    return Table(
        "Accuracy",
        head,
        rows,
        f"Percent. A reply that could not be had {counts_as}. Intervals are Wilson's, or a "
        "cluster bootstrap's where questions share an image or were asked several times.",
    )


def _right(summary: Summary) -> str:
    """How many replies are right, and of how many where a question has several."""
    several = summary.n_records > summary.n
    return f"{summary.n_correct} of {summary.n_records}" if several else str(summary.n_correct)


def _parsers(summaries: Sequence[Summary]) -> Table:
    rows = []
    for name, summary in zip(labels(summaries), summaries, strict=True):
        for parser, share in summary.parsers.items():
            rules = ", ".join(f"{rule} {count}" for rule, count in sorted(share.rules.items(), key=_by_count))
            counts = (str(share.n_answered), str(share.n_ambiguous))
            rows.append((name, parser, with_ci(share.accuracy, share.ci), *counts, rules))
    notes = []
    for name, summary in zip(labels(summaries), summaries, strict=True):
        ids = list(summary.disagreement)
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        listed = f": {', '.join(map(visible, ids[:SHOWN_IDS]))}{more}" if ids else ""
        notes.append(f"{name}: the parsers differ on {len(ids)} questions{listed}.")
    head = ("model", "parser", "accuracy [95 % CI]", "with a letter", "ambiguous", "rules")
    return Table("Both parsers on the same replies", head, tuple(rows), " ".join(notes))


def _by_count(rule: tuple[str, int]) -> tuple[int, str]:
    return -rule[1], rule[0]


def _pooled(runs: Sequence[Results], summaries: Sequence[Summary]) -> list[Table]:
    """The columns of the paper's Table 4, if some model was asked Text and MM."""
    rows = pooled_rows(runs, errors=summaries[0].errors)
    if not any("average" in row.columns for row in rows):
        return []
    shown = tuple(
        (
            visible(row.name),
            visible(row.protocol or "unknown"),
            row.parser,
            *(percent(row.columns[name].accuracy) if name in row.columns else "" for name in COLUMNS),
        )
        for row in rows
    )
    head = ("model", "protocol", "parser", *(name.replace("_", " ") for name in COLUMNS))
    note = (
        "Reasoning, understanding and average pool Text and MM question by question, as AvgR, AvgU and Avg."
    )
    return [Table("As the paper's Table 4", head, shown, note)]


def _shortcuts(runs: Sequence[Results], summaries: Sequence[Summary]) -> list[Table]:
    """What is right without the images or the stem, if some run was asked so."""
    rows = tuple(
        (
            visible(found.name or "a run"),
            " and ".join(found.without),
            with_ci(found.cell.accuracy, found.cell.ci),
            percent(found.chance),
            p_text(found.p_value),
            percent(found.majority),
            "" if found.loss is None else f"{with_ci(found.loss.difference, found.loss.ci)} n={found.loss.n}",
        )
        for found in find_shortcuts(runs, errors=summaries[0].errors)
    )
    if not rows:
        return []
    head = (
        "model",
        "without",
        "accuracy [95 % CI]",
        "chance",
        "p (better than chance)",
        "commonest letter",
        "lost [95 % CI]",
    )
    note = (
        "Percent. What is right without them comes from guesses, habits or memory. p: exact binomial, "
        "one-sided. Lost: the same model's run with everything, less this one."
    )
    return [Table("Shortcuts", head, rows, note)]


def _cells(summaries: Sequence[Summary]) -> list[Table]:
    tables = []
    for key, title in TITLES.items():
        values = list(dict.fromkeys(value for summary in summaries for value in summary.by.get(key, ())))
        if not values:
            continue
        rows = tuple(
            (visible(value), *(_cell_text(summary.by.get(key, {}).get(value)) for summary in summaries))
            for value in values
        )
        cells = [cell for summary in summaries for cell in summary.by.get(key, {}).values()]
        tables.append(Table(title, ("", *labels(summaries)), rows, _small_note(cells)))
    return tables


def _small_note(cells: Iterable[Cell | PairedCell]) -> str:
    if not any(cell.small for cell in cells):
        return ""
    return f"* fewer than {SMALL} questions: the interval says little."


def _cell_text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{with_ci(cell.accuracy, cell.ci)} n={cell.n}{'*' if cell.small else ''}"


def _position(summaries: Sequence[Summary]) -> list[Table]:
    rows = []
    for name, summary in zip(labels(summaries), summaries, strict=True):
        if summary.position is None:
            continue
        found = summary.position
        counts = " ".join(f"{letter}:{count}" for letter, count in found.counts.items())
        same = "" if summary.consistency is None else percent(summary.consistency)
        rows.append(
            (name, counts, f"{found.chi2:.2f}", p_text(found.p_value), percent(found.recall_sd), same)
        )
    head = ("model", "letters given", "chi2 against uniform", "p", "SD of recalls", "same in all orders")
    return [Table("Preference for letters", head, tuple(rows))] if rows else []


def _remarks(summaries: Sequence[Summary]) -> list[str]:
    remarks = []
    for name, summary in zip(labels(summaries), summaries, strict=True):
        if not summary.complete:
            problem = f"{summary.n_missing} replies are missing, {summary.n_errors} are errors"
            remarks.append(f"{name} is not complete: {problem}.")
        if summary.n_truncated:
            remarks.append(
                f"{name}: {summary.n_truncated} replies were cut off at max_tokens; reasoners need more."
            )
        if not summary.protocol.startswith("official") or "(" in summary.protocol:
            remarks.append(
                f"{name} was not asked by an official protocol: its numbers are not the paper's kind."
            )
    return remarks
