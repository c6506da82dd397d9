"""Results as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tenfold.claims import Claim, Verdict
from tenfold.estimates import number_text

if TYPE_CHECKING:
    from tenfold.comparison import Comparison
    from tenfold.experiments import Experiment
    from tenfold.results import ClaimResult, ClaimsFile

COLOURS = {Verdict.HELD: "green", Verdict.DID_NOT_HOLD: "red", Verdict.NOT_TESTED: "yellow"}


def experiments_table() -> Table:
    """Return the installed experiments: name, what its package says it is, package and version."""
    from tenfold.experiments import installed_experiments

    table = _table("paper", "what it is", "package")
    for found in installed_experiments():
        table.add_row(found.name, found.summary, f"{found.package} {found.version}".strip())
    return table


def experiment_table(experiment: Experiment) -> Table:
    """Return the claims of an experiment as they stand before a run: id, claim, paper, rule, scales."""
    from tenfold.configs import available_scales

    scales = available_scales(experiment)
    table = _table("id", "claim", "paper", "holds if", "tested at", title=experiment.title)
    for claim in experiment.claims:
        tested = ", ".join(scale for scale in scales if scale in claim.scales)
        table.add_row(claim.id, claim.statement, paper_number(claim), claim.condition, tested)
    if experiment.gating:
        table.caption = Text(f"gating (--assert): {', '.join(experiment.gating)}")
    return table


def claims_table(claims: ClaimsFile) -> Table:
    """Return the claims of a run: id, claim, paper, ours, verdict."""
    table = _table("id", "claim", "paper", "ours", "verdict", title=f"{claims.title} ({claims.scale})")
    for claim in claims.claims:
        table.add_row(claim.id, claim.statement, paper_number(claim), _ours(claim), _verdict(claim))
    return table


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Return what differs in the configs, the claims and the metrics of two runs."""
    first, second = comparison.names
    if comparison.config:
        table = _table("config", first, second)
        for key, values in comparison.config.items():
            table.add_row(key, *("" if value is None else str(value) for value in values))
        yield table
    table = _table("id", "claim", first, second)
    for left, right in comparison.claims:
        claim = left or right
        assert claim is not None
        table.add_row(claim.id, claim.statement, *(_cell(side) for side in (left, right)))
    yield table
    table = _table("metric", first, second, "change")
    for name, old, new in comparison.metrics:
        change = "" if old is None or new is None else _change(old.mean, new.mean)
        table.add_row(name, "" if old is None else str(old), "" if new is None else str(new), change)
    yield table


def datasets_table() -> Table:
    """Return the named data sets: name, licence, whether it can be had here."""
    from tenfold.data import datasets

    table = _table("data", "licence", "available")
    for name, dataset in sorted(datasets().items()):
        table.add_row(name, dataset.licence, "yes" if dataset.available() else "no")
    return table


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=None if title is None else Text(title))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def paper_number(claim: Claim | ClaimResult, write: Callable[[float], str] = number_text) -> str:
    """Return what the paper says: its own words, or its number as `write` shows it, with the unit."""
    if claim.paper_text or claim.paper_value is None:
        return claim.paper_text
    return f"{write(claim.paper_value)} {claim.unit}".strip()


def _ours(claim: ClaimResult) -> str:
    return "" if claim.ours is None else f"{claim.ours.estimate()} {claim.unit}".strip()


def _verdict(claim: ClaimResult) -> Text:
    return Text(claim.outcome, style=COLOURS[claim.verdict])


def _cell(claim: ClaimResult | None) -> Text:
    if claim is None:
        return Text("")
    ours = _ours(claim)
    return Text.assemble(_verdict(claim), f"\n{ours}" if ours else "")


def _change(old: float, new: float) -> str:
    return f"{new - old:+.4g}" + (f" ({100 * (new - old) / abs(old):+.1f}%)" if old else "")
