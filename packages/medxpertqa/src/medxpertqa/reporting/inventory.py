"""Tables of what is not a run: what is installed, what questions are, what a leakage audit found."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from math import isnan, nan
from statistics import fmean
from typing import TYPE_CHECKING

from medxpertqa.attributes import DatasetStatistics
from medxpertqa.hub import REVISION, SETS, cached
from medxpertqa.parsing import PARSERS
from medxpertqa.protocols import PROTOCOLS, get_protocol
from medxpertqa.reporting.tables import TITLES, Table, percent

if TYPE_CHECKING:
    from medxpertqa.memory import LeakageAudit

_EXTRAS = {
    "data": ("pyarrow",),
    "embed": ("sklearn", "torch", "transformers"),
    "eval": ("inspect_ai", "openai"),
    "images": ("PIL",),
    "leakage": ("torch", "transformers"),
    "lm-eval": ("lm_eval",),
    "report": ("jinja2", "matplotlib"),
    "vllm": ("vllm",),
}


def installation_tables() -> list[Table]:
    """The sets of questions, the protocols with their parsers, and the extras that are installed."""
    sets = tuple((name, f"{about.size:,}", _where(about.file)) for name, about in SETS.items())
    ways = []
    for name in PROTOCOLS:
        if name == "few-shot":
            ways.append((name, "1", "official", "of the dev split"))
            continue
        protocol = get_protocol(name)
        longest = protocol.generate_config.get(
            "max_tokens", protocol.generate_config.get("max_completion_tokens")
        )
        ways.append((name, str(protocol.n_turns), protocol.parser, f"at most {longest} tokens a turn"))
    extras = tuple(
        (name, "yes" if all(map(find_spec, needed)) else f"pip install 'medxpertqa[{name}]'")
        for name, needed in _EXTRAS.items()
    )
    return [
        Table("Questions", ("set", "questions", "where"), sets, f"The hub's revision is {REVISION}."),
        Table(
            "Protocols",
            ("protocol", "turns", "official parser", ""),
            tuple(ways),
            f"Every run is read by robust beside the official parser; there are: {', '.join(PARSERS)}.",
        ),
        Table("Extras", ("extra", "installed"), extras),
    ]


def _where(file: str) -> str:
    if not file:
        return "in the package"
    return "in the hub's cache" if cached(file) else "on the hub: medxpertqa download"


def statistics_tables(found: DatasetStatistics) -> list[Table]:
    """Counts of questions by subset and attribute."""
    subsets = list(found.n)
    total = tuple(f"{found.n[subset]:,}" for subset in subsets)
    tables = [Table("Questions", ("", *subsets), (("questions", *total),))]
    for field in ("question_type", "medical_task", "body_system"):
        counts = getattr(found, field)
        shares = found.pooled_percent(field)
        rows = tuple(
            (
                value or "not given",
                *(f"{counts[subset].get(value, 0):,}" for subset in subsets),
                f"{share:.2f}",
            )
            for value, share in shares.items()
        )
        tables.append(Table(TITLES[field], ("", *subsets, "% of all"), rows))
    rows = tuple(
        (str(n), *(f"{found.n_images[subset].get(n, 0):,}" for subset in subsets))
        for n in sorted({n for counts in found.n_images.values() for n in counts})
    )
    return [
        *tables,
        Table("By number of images", ("", *subsets), rows, f"{found.total_images:,} images in all."),
    ]


def _mean(values: Iterable[float | None]) -> float:
    """Without those that are not known (a text too short)."""
    found = [value for value in values if value is not None and not isnan(value)]
    return fmean(found) if found else nan


def leakage_tables(audit: LeakageAudit) -> list[Table]:
    """The means over the questions, and the paired changes by rewriting."""
    rows = audit.rows
    flagged = sum(row.text.flagged for row in rows)
    means = [
        ("perplexity of the question", fmean(row.text.perplexity for row in rows)),
        ("n-grams continued exactly", _mean(row.text.ngram_accuracy for row in rows)),
        ("perplexity of its own answer", fmean(row.output.perplexity for row in rows)),
        ("log10 of 1/P(own answer)", fmean(row.output.log10_inverse_probability for row in rows)),
    ]
    explained = [row for row in rows if row.rouge_l is not None]
    if explained:
        means.append(("ROUGE-L to the explanation", _mean(row.rouge_l for row in explained)))
        means.append(("edit similarity to the explanation", _mean(row.edit_similarity for row in explained)))
    note = (
        f"{flagged} of {len(rows)} questions are flagged: the model continues them at every place "
        f"({percent(flagged / len(rows))} %). The mean of log10(1/P) is dominated by the longest answers."
    )
    tables = [
        Table(
            "Leakage", ("mean over the questions", ""), tuple((name, f"{v:.4g}") for name, v in means), note
        )
    ]
    if audit.changes:
        changed = tuple(
            (name, f"{c.before:.4g}", f"{c.after:.4g}", f"{c.difference:.4g} [{c.ci[0]:.4g}, {c.ci[1]:.4g}]")
            for name, c in audit.changes.items()
        )
        head = ("after rewriting", "before", "after", "change [95 % CI]")
        tables.append(Table("Rewriting", head, changed, "Paired bootstrap over questions."))
    return tables
