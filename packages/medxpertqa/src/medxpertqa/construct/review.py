"""Sheets on which experts accept, fix or delete questions, and what follows from two or more of them."""

from __future__ import annotations

import csv
import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

from medxpertqa.construct.agreements import Agreement, agreement
from medxpertqa.errors import DataError
from medxpertqa.questions import Question

DECISIONS = ("accept", "fix", "delete")
QUESTION_ERRORS = (
    "formatting",
    "narrative inconsistency",
    "information inconsistency",
    "source information contained",
)
OPTION_ERRORS = ("formatting", "inapplicable", "unreasonable")
_SHOWN = ("id", "stem", "options", "label", "images", "to check")
_FILLED = ("decision", "question errors", "option errors", "new stem", "new options", "new label", "comment")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export_review(
    questions: Sequence[Question], path: str | Path, notes: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Write a sheet to fill in: CSV, or by the ending .html a form that saves the same CSV.

    `notes[id]` is what the mechanical checks found. A cell that a spreadsheet would take for a formula (it
    begins with = + - @) gets an apostrophe, which `import_review` takes away again.

    Raises:
        DataError: another ending.
    """
    path = check_sheet_name(path)
    rows = [_row(question, (notes or {}).get(question.id, ())) for question in questions]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*_SHOWN, *_FILLED])
            writer.writerows([[_guard(cell) for cell in row] + [""] * len(_FILLED) for row in rows])
    else:
        path.write_text(_form(rows), encoding="utf-8")


def check_sheet_name(path: str | Path) -> Path:
    """The path, where it can be a sheet's to write. Raises `DataError` for another ending."""
    path = Path(path)
    if path.suffix not in (".csv", ".html"):
        raise DataError(f"{path}: a review sheet ends in .csv or .html")
    return path


def _row(question: Question, notes: Sequence[str]) -> list[str]:
    options = "\n".join(f"{letter}. {text}" for letter, text in question.options.items())
    cells = [question.id, question.stem, options, question.label, " ".join(question.images), "\n".join(notes)]
    return [_visible(cell) for cell in cells]


def _visible(text: str) -> str:
    """Show control and direction characters as code points: text must not look like other text."""
    return re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]",
        lambda match: f"[U+{ord(match[0]):04X}]",
        text,
    )


def _guard(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _bare(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


@dataclass(frozen=True)
class Decided:
    """One reviewer's decision about one question; `fixed` is the question as they want it."""

    decision: str
    fixed: Question | None
    errors: Counter[tuple[str, str]]


@dataclass(frozen=True)
class Review:
    """What the sheets decide: questions that stay (with their fixes), ids deleted, ids still open.

    `findings` has the id, "question" or "option", and the type of each error that was found. `agreement` is
    of this round's sheets, None where no question has two decisions.
    """

    kept: list[Question]
    deleted: list[str]
    open: list[str]
    findings: frozenset[tuple[str, str, str]]
    agreement: Agreement | None

    @property
    def errors(self) -> Counter[tuple[str, str]]:
        """How many questions have an error, by ("question" or "option", type)."""
        return Counter((place, kind) for _, place, kind in self.findings)


def import_review(
    questions: Sequence[Question],
    sheets: Mapping[str, str | Path],
    needed: int = 2,
    earlier: Review | None = None,
) -> Review:
    """Read the filled sheets of one round, one a reviewer, and apply what at least `needed` of them agree on.

    A question is settled when `needed` reviewers decided and all decided the same (fixes: to the same text);
    everything else stays open, for another round on a sheet of its own. `earlier` is the review of the rounds
    before: what they settled stays so, and the sheets are about what they left open.

    Raises:
        DataError: naming file, question and column, for an unknown or settled id, an unknown decision or
            error type, an id or a letter twice, a fix that changes nothing or makes no question; for a
            question that is on no sheet, as when those of the rounds before are not given.
    """
    under_review = {q.id: q for q in questions if earlier is None or q.id in earlier.open}
    read = {name: read_sheet(path, under_review) for name, path in sheets.items()}
    listed = {cells.get("id") for path in sheets.values() for cells in _cells(path)}
    lacking = [name for name in under_review if name not in listed]
    if lacking:
        raise DataError(
            f"{lacking[0]} is under review and on no sheet of the round; give all of them, and the sheets of "
            "the rounds before it, with a plus between the rounds"
        )
    settled = {question.id: question for question in earlier.kept} if earlier else {}
    deleted = list(earlier.deleted) if earlier else []
    still_open = []
    findings = set(earlier.findings) if earlier else set()
    for name, question in under_review.items():
        decided = [sheet[name] for sheet in read.values() if name in sheet]
        findings |= {(name, *error) for one in decided for error in one.errors}
        same = all(one.decision == decided[0].decision and one.fixed == decided[0].fixed for one in decided)
        if len(decided) < needed or not same:
            still_open.append(name)
        elif decided[0].decision == "delete":
            deleted.append(name)
        else:
            settled[name] = decided[0].fixed or question
    decisions = {name: {q: one.decision for q, one in sheet.items()} for name, sheet in read.items()}
    pairs = Counter(name for sheet in read.values() for name in sheet)
    both = agreement(decisions) if any(count > 1 for count in pairs.values()) else None
    kept = [settled[question.id] for question in questions if question.id in settled]
    return Review(kept, deleted, still_open, frozenset(findings), both)


def read_sheet(path: str | Path, by_id: Mapping[str, Question]) -> dict[str, Decided]:
    """Read one reviewer's CSV; rows without a decision do not count. Raises as `import_review`."""
    found: dict[str, Decided] = {}
    for cells in _cells(path):
        name = cells.get("id", "")
        where = f"{path}, question {name or '(no id)'}"
        if name not in by_id:
            raise DataError(f"{where}: column id: not among the questions under review")
        decision = cells.get("decision", "").lower()
        if not decision:
            continue
        if name in found:
            raise DataError(f"{where}: it comes twice")
        if decision not in DECISIONS:
            raise DataError(f"{where}: column decision: {decision!r} is none of {', '.join(DECISIONS)}")
        errors = _errors(cells, "question", QUESTION_ERRORS, where) + _errors(
            cells, "option", OPTION_ERRORS, where
        )
        fixed = _fixed(by_id[name], cells, where) if decision == "fix" else None
        found[name] = Decided(decision, fixed, Counter(errors))
    return found


def _cells(path: str | Path) -> list[dict[str, str]]:
    """The cells of each row by column, as they were before they were guarded."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: the sheet can't be read ({error})") from None
    return [{key: _bare(value or "").strip() for key, value in row.items() if key} for row in rows]


def _errors(
    cells: Mapping[str, str], place: str, known: tuple[str, ...], where: str
) -> list[tuple[str, str]]:
    column = f"{place} errors"
    named = [part.strip().lower() for part in re.split(r"[;,\n]", cells.get(column, "")) if part.strip()]
    for name in named:
        if name not in known:
            raise DataError(f"{where}: column {column}: {name!r} is none of {', '.join(known)}")
    return [(place, name) for name in named]


def _fixed(question: Question, cells: Mapping[str, str], where: str) -> Question:
    options = dict(question.options)
    if lines := cells.get("new options"):
        texts = [
            re.fullmatch(r"([A-Z])[.)]\s*(.+)", line.strip()) for line in lines.splitlines() if line.strip()
        ]
        if not all(texts):
            raise DataError(f"{where}: column new options: needed: all options, a line each, as 'A. text'")
        options = {match[1]: match[2] for match in texts if match}
        if len(options) < len(texts):
            raise DataError(f"{where}: column new options: a letter comes twice")
    try:
        fixed = replace(
            question,
            stem=cells.get("new stem") or question.stem,
            options=options,
            label=cells.get("new label") or question.label,
        )
    except DataError as error:
        raise DataError(f"{where}: the fix makes no question: {error}") from None
    if fixed == question:
        raise DataError(
            f"{where}: the decision is fix, but new stem, new options and new label change nothing"
        )
    return fixed


def _form(rows: Sequence[Sequence[str]]) -> str:
    """One page without outside parts; texts are escaped, and put in as text, never as markup."""
    cards = []
    for row in rows:
        shown = "".join(
            f"<dt>{name}</dt><dd>{html.escape(cell)}</dd>"
            for name, cell in zip(_SHOWN, row, strict=True)
            if cell
        )
        fields = "".join(_input(name) for name in _FILLED)
        hidden = "".join(f'<input type=hidden value="{html.escape(_guard(cell))}">' for cell in row)
        cards.append(f"<form><dl>{shown}</dl>{hidden}{fields}</form>")
    return _PAGE.format(header=",".join([*_SHOWN, *_FILLED]), cards="\n".join(cards))


def _input(name: str) -> str:
    if name == "decision":
        choices = "".join(f"<option>{choice}</option>" for choice in ("", *DECISIONS))
        return f"<label>{name} <select>{choices}</select></label>"
    known = {"question errors": QUESTION_ERRORS, "option errors": OPTION_ERRORS}.get(name)
    if name == "new label":
        known = tuple(ascii_uppercase)
    hint = f' placeholder="{"; ".join(known)}"' if known and name != "new label" else ""
    return f"<label>{name} <textarea{hint}></textarea></label>"


_PAGE = """<!doctype html><meta charset=utf-8><title>Review sheet</title>
<style>body{{font:16px/1.5 sans-serif;max-width:50em;margin:auto;padding:1em}}dd{{white-space:pre-wrap}}
form{{border-top:1px solid #888;padding:1em 0}}label{{display:block}}textarea{{width:100%;height:3em}}</style>
<button id=save>Save as CSV</button>
{cards}
<script>
document.getElementById("save").onclick = () => {{
  const quote = text => '"' + text.replaceAll('"', '""') + '"';
  const guard = text => /^[=+@\\t\\r-]/.test(text) ? "'" + text : text;
  const rows = [...document.forms].map(form => [...form.elements].map(e => quote(guard(e.value))).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["{header}\\n" + rows.join("\\n")], {{type: "text/csv"}}));
  link.download = "review.csv";
  link.click();
}};
</script>
"""
