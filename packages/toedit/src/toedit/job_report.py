"""The statistics of a finished job as one page that opens anywhere: no scripts, no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from math import isnan, log10
from pathlib import Path
from typing import Any

from toedit.manifest import DOCUMENTS, QUARANTINE, REPORT, read_manifest
from toedit.statistics import BINS, EditStats

# Edits on the page, reasons of the quarantine.
_EXAMPLES = 40
_REASONS = 20

# Bins a factor of ten of the histogram of perplexities.
_PER_DECADE = 5

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 60rem; margin: 2rem auto }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
del { background: #fdd8d2 } ins { background: #cfeed3; text-decoration: none } .quiet { color: #666 }
.text { white-space: pre-wrap; overflow-wrap: anywhere }
td.id { min-width: 6rem; overflow-wrap: anywhere }
.wide { overflow-x: auto } svg text { font: 12px system-ui, sans-serif }
@media print { body { margin: 0 } }
"""


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into the folder of a job, from its manifest and the files beside it.

    Raises `ToEditError` if the folder has no manifest.
    """
    path = Path(folder) / REPORT
    path.write_text(report_html(folder), encoding="utf-8")
    return path


def report_html(folder: str | Path) -> str:
    """The page that `write_report` writes."""
    state = read_manifest(folder)
    examples = _spread([example for record in state.shards for example in record.examples], _EXAMPLES)
    sections = [
        _counts(state.stats, state.n_quarantined),
        _section("How probable the tokens were", _probabilities(state.stats)),
        _section("Perplexity of the documents", _perplexities(Path(folder) / DOCUMENTS)),
        _section("Edits", _edits(examples)),
        _section("Rows that were left out", _quarantine(Path(folder) / QUARANTINE)),
        _section("Settings", _settings(state.header.get("settings", {}))),
    ]
    head = f'<meta charset="utf-8"><title>Token editing</title><style>{_STYLE}</style>'
    body = "\n".join(["<h1>Token editing</h1>", *sections])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def summary_rows(stats: EditStats, n_quarantined: int) -> list[tuple[str, str, str]]:
    """(what, number, what it means) of the statistics, for the page and for the terminal."""
    tokens, expected = max(stats.n_tokens, 1), stats.expected_changes
    rows = [
        ("documents", f"{stats.n_documents:,}", f"{stats.n_empty:,} of them without any text"),
        ("left out", f"{n_quarantined:,}", f"rows in {QUARANTINE}, with reasons"),
        ("tokens", f"{stats.n_tokens:,}", f"{stats.n_scored:,} of them were scored"),
        ("perplexity", _number(stats.perplexity, ".3f"), "of the text as it was, under the prior"),
        (
            "candidates",
            f"{stats.n_candidates:,}",
            f"{stats.n_candidates / tokens:.3%} of the tokens: drawn anew",
        ),
        (
            "changed",
            f"{stats.n_changed:,}",
            f"{stats.n_changed / tokens:.4%} of the tokens: another came out",
        ),
        (
            "expected",
            format(expected, ",.1f" if expected >= 10 else ".2g"),
            "changes on average over seeds, without drawing",
        ),
        ("swap", _number(stats.mean_swap_probability, ".3%"), "mean probability of a candidate to change"),
    ]
    if stats.n_dropped:
        rows.append(("deleted", f"{stats.n_dropped:,}", "tokens of too low a probability"))
    if stats.n_skipped:
        rows.append(("taken back", f"{stats.n_skipped:,}", "changes that the text could not hold"))
    rows.append(("tokenized anew", f"{stats.n_retokenized:,}", "documents whose new text gives other tokens"))
    return rows


def _number(value: float, form: str) -> str:
    return "none" if isnan(value) else format(value, form)


def _counts(stats: EditStats, n_quarantined: int) -> str:
    rows = [
        f'<tr><th>{what}</th><td class="n">{number}</td><td class="quiet">{escape(meaning)}</td></tr>'
        for what, number, meaning in summary_rows(stats, n_quarantined)
    ]
    return f"<table>{''.join(rows)}</table>"


def _probabilities(stats: EditStats) -> str:
    labels = [f"{index / BINS:.1f}" for index in range(BINS)]
    note = (
        "Share of the scored tokens with P from the number below the bar to the next one (Table 6 of the "
        f"paper). Candidates are {stats.n_candidates:,} tokens, changed are {stats.n_changed:,}."
    )
    return _bars(stats.histogram, labels) + f'<p class="quiet">{note}</p>'


def _perplexities(path: Path) -> str:
    counts: dict[int, int] = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            perplexity = json.loads(line)["perplexity"]
            if perplexity is not None:
                place = int(log10(max(perplexity, 1.0)) * _PER_DECADE)
                counts[place] = counts.get(place, 0) + 1
    if not counts:
        return "<p>No document has one.</p>"
    places = range(min(counts), max(counts) + 1)
    starts = [10 ** (place / _PER_DECADE) for place in places]
    labels = [f"{start:,.0f}" if start >= 100 else f"{start:.3g}" for start in starts]
    return _bars([counts.get(place, 0) for place in places], labels) + (
        '<p class="quiet">Share of the documents with a perplexity from the number below the bar on.</p>'
    )


def _bars(counts: Sequence[int], labels: Sequence[str]) -> str:
    total, most = max(sum(counts), 1), max(*counts, 1)
    width, height, parts = 56, 160, []
    for index, (count, label) in enumerate(zip(counts, labels, strict=True)):
        x, tall = index * width, count / most * height
        middle = x + width / 2
        parts.append(
            f'<rect x="{x + 4}" y="{20 + height - tall:.1f}" width="{width - 8}" height="{tall:.1f}" '
            f'fill="#4a76a8"><title>{count:,}</title></rect>'
            f'<text x="{middle}" y="{14 + height - tall:.1f}" text-anchor="middle">{count / total:.1%}</text>'
            f'<text x="{x + 4}" y="{36 + height}">{label}</text>'
        )
    size = f'width="{len(counts) * width}" height="{height + 44}"'
    return f'<div class="wide"><svg {size} role="img">{"".join(parts)}</svg></div>'


def _edits(examples: Sequence[dict[str, str]]) -> str:
    if not examples:
        return "<p>No token was changed.</p>"
    rows = [
        f'<tr><td class="quiet id">{escape(e["id"])}</td><td class="text">{escape(e["before"])}'
        f"<del>{escape(e['old'])}</del><ins>{escape(e['new'])}</ins>{escape(e['after'])}</td></tr>"
        for e in examples
    ]
    return f"<table>{''.join(rows)}</table>"


def _quarantine(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line, _ in zip(file, range(_REASONS), strict=False)]
    if not lines:
        return "<p>None.</p>"
    rows = [
        f"<tr><td>{escape(line['input'])}, row {line['row']}</td>"
        f'<td class="text">{escape(line["reason"])}</td></tr>'
        for line in lines
    ]
    return f"<table>{''.join(rows)}</table><p>The first {len(lines)}; all are in {QUARANTINE}.</p>"


def _settings(settings: dict[str, Any]) -> str:
    values = {**{k: v for k, v in settings.items() if k != "config"}, **settings.get("config", {})}
    rows = [
        f"<tr><th>{escape(key)}</th><td>{escape(json.dumps(value, ensure_ascii=False))}</td></tr>"
        for key, value in values.items()
    ]
    return f"<table>{''.join(rows)}</table>"


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>\n{content}"


def _spread(items: Iterable[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly from all of them."""
    all_items = list(items)
    if len(all_items) <= most:
        return all_items
    return [all_items[index * len(all_items) // most] for index in range(most)]
