"""The tables of a report, as text: the terminal and the page show the same ones.

Nothing in them is the text of a question or of a reply. Names of models and of other harnesses' protocols are
not trusted: control characters and those that turn the direction of writing are shown as their code.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medxpertqa.errors import MedXpertQAWarning
from medxpertqa.results import Results
from medxpertqa.stats import Interval
from medxpertqa.summaries import SMALL, Cell, Comparison, PairedCell, Summary, compare_all

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
    """A name for each run: the model's, and its protocol where another run has the same name."""
    names = [visible(summary.name or f"run {place}") for place, summary in enumerate(summaries, 1)]
    return [
        f"{name} ({visible(summary.protocol)}, {summary.parser})" if names.count(name) > 1 else name
        for name, summary in zip(names, summaries, strict=True)
    ]


def report_tables(runs: Sequence[Results], summaries: Sequence[Summary]) -> tuple[list[Table], list[str]]:
    """All tables of one or several runs, whose errors count alike, and what has to be said about them."""
    tables = [_overview(summaries), _parsers(summaries), *_cells(summaries), *_position(summaries)]
    remarks = _remarks(summaries)
    if len(runs) > 1:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", MedXpertQAWarning)
            pairs = compare_all(runs, errors=summaries[0].errors)
        tables.append(comparison_table(pairs))
        remarks += dict.fromkeys(str(warning.message) for warning in caught)
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
        tables.append(Table("Difference " + TITLES[key].lower(), head, rows, " ".join(filter(None, notes))))
    return tables


def as_json(summary: Summary) -> dict[str, Any]:
    """What `score --json` prints: accuracies as shares, counts, cells, both parsers, tokens and cost."""

    def cell(found: Cell) -> dict[str, Any]:
        return {
            "n": found.n,
            "n_correct": found.n_correct,
            "accuracy": found.accuracy,
            "ci": list(found.ci),
            "standard_error": found.standard_error,
        }

    counts = ("n_records", "n_no_answer", "n_errors", "n_truncated", "n_filtered", "n_empty", "n_missing")
    return {
        "name": summary.name,
        "protocol": summary.protocol,
        "parser": summary.parser,
        "errors": summary.errors,
        **cell(summary),
        **{key: getattr(summary, key) for key in counts},
        "complete": summary.complete,
        "by": _mapped(summary.by, cell),
        "parsers": {
            name: {
                "n_correct": share.n_correct,
                "accuracy": share.accuracy,
                "ci": list(share.ci),
                "n_answered": share.n_answered,
                "n_ambiguous": share.n_ambiguous,
                "rules": dict(share.rules),
            }
            for name, share in summary.parsers.items()
        },
        "disagreement": list(summary.disagreement),
        "position": summary.position
        and {
            "chi2": summary.position.chi2,
            "p_value": summary.position.p_value,
            "counts": dict(summary.position.counts),
        },
        "consistency": summary.consistency,
        "usage": {
            "input_tokens": summary.input_tokens,
            "output_tokens": summary.output_tokens,
            "cost": summary.cost,
        },
    }


def comparison_as_json(pair: Comparison, adjusted: float) -> dict[str, Any]:
    """What `compare --json` prints of a pair: shares, counts and p-values; `adjusted` is Holm's."""

    def difference(found: PairedCell) -> dict[str, Any]:
        return {
            "n": found.n,
            "difference": found.difference,
            "ci": list(found.ci),
            "p_value": found.p_value,
        }

    return {
        "names": list(pair.names),
        **difference(pair),
        "p_value_holm": adjusted,
        "mid_p": pair.mid_p,
        "only_a": pair.only_a,
        "only_b": pair.only_b,
        "by": _mapped(pair.by, difference),
    }


def _mapped(by: Mapping[str, Mapping[str, Any]], made: Any) -> dict[str, Any]:
    return {key: {value: made(cell) for value, cell in cells.items()} for key, cells in by.items()}


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
