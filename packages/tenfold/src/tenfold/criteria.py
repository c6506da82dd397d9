"""When a claim holds: small typed conditions on the metrics of a finished run.

A bound is a number, the name of another metric, or None for the number that the paper printed.
Comparisons use the means over seeds; with `every_seed=True` each seed must satisfy them, paired with
the same seed of the metric it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from tenfold.estimates import Estimate, number_text

Bound: TypeAlias = float | str | None


class NotTestableError(Exception):
    """The metrics cannot answer the question; the message is the reason that the claim is shown with."""


@runtime_checkable
class Criterion(Protocol):
    """What every criterion offers; a package may bring its own."""

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Say whether `metric` passes; raises `NotTestableError` where the metrics cannot say."""

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return the condition in words and signs, for the report."""

    def references(self) -> tuple[str, ...]:
        """Return the names of the other metrics that it compares with."""

    def uses_paper_value(self) -> bool:
        """Say whether it compares with the number that the paper printed."""


def resolve_bound(bound: Bound, metrics: Mapping[str, Estimate], paper_value: float | None) -> Estimate:
    """Return the bound as an estimate. Raises `NotTestableError` if there is no such metric or number."""
    if isinstance(bound, str):
        if bound not in metrics:
            raise NotTestableError(f"metric {bound} missing from the run")
        return metrics[bound]
    if bound is None and paper_value is None:
        raise NotTestableError("the paper gives no number to compare with")
    return Estimate((paper_value if bound is None else bound,))  # type: ignore[arg-type]  # one is a number


def describe_bound(bound: Bound, paper_value: float | None) -> str:
    """Return the bound for people: the metric's name, the number, or the paper's number."""
    if bound is not None:
        return bound if isinstance(bound, str) else number_text(bound)
    return "the paper's number" if paper_value is None else f"{number_text(paper_value)} (the paper)"


def paired(metric: Estimate, bound: Estimate) -> list[tuple[float, float]]:
    """Return (sample, bound) seed by seed; a bound of one sample stands for every seed."""
    others = bound.samples * len(metric.samples) if len(bound.samples) == 1 else bound.samples
    if len(others) != len(metric.samples):
        raise NotTestableError(f"{len(metric.samples)} and {len(others)} seeds cannot be paired")
    return list(zip(metric.samples, others, strict=True))


@dataclass(frozen=True)
class _WithBound:
    bound: Bound = None

    def references(self) -> tuple[str, ...]:
        """Return the name of the metric it compares with, if that is what the bound is."""
        return (self.bound,) if isinstance(self.bound, str) else ()

    def uses_paper_value(self) -> bool:
        """Say whether the bound was left out, which means the paper's number."""
        return self.bound is None


@dataclass(frozen=True)
class _Comparison(_WithBound):
    ratio: float = 1.0
    every_seed: bool = False

    sign: ClassVar[str]

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Compare the metric with `ratio` times the bound; raises `NotTestableError`."""
        bound = resolve_bound(self.bound, metrics, paper_value)
        pairs = paired(metric, bound) if self.every_seed else [(metric.mean, bound.mean)]
        return all(self._passes(value, self.ratio * limit) for value, limit in pairs)

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return for example `ppl_lpa <= 1.02 x ppl_dense, on every seed`."""
        factor = "" if self.ratio == 1.0 else f"{self.ratio:g} × "
        seeds = ", on every seed" if self.every_seed else ""
        return f"{metric} {self.sign} {factor}{describe_bound(self.bound, paper_value)}{seeds}"

    @staticmethod
    def _passes(value: float, limit: float) -> bool:
        raise NotImplementedError


class AtLeast(_Comparison):
    """metric >= ratio x bound."""

    sign = "≥"

    @staticmethod
    def _passes(value: float, limit: float) -> bool:
        return value >= limit


class AtMost(_Comparison):
    """metric <= ratio x bound."""

    sign = "≤"

    @staticmethod
    def _passes(value: float, limit: float) -> bool:
        return value <= limit


class Above(_Comparison):
    """metric > ratio x bound."""

    sign = ">"

    @staticmethod
    def _passes(value: float, limit: float) -> bool:
        return value > limit


class Below(_Comparison):
    """metric < ratio x bound."""

    sign = "<"

    @staticmethod
    def _passes(value: float, limit: float) -> bool:
        return value < limit


@dataclass(frozen=True)
class Equals(_WithBound):
    """|metric - bound| <= tolerance on every seed: for facts that are the same whatever the seed."""

    tolerance: float = 0.0

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Compare every sample with the bound; raises `NotTestableError`."""
        pairs = paired(metric, resolve_bound(self.bound, metrics, paper_value))
        return all(value == other or abs(value - other) <= self.tolerance for value, other in pairs)

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return for example `params = 115265025`."""
        tolerance = f" ± {self.tolerance:g}" if self.tolerance else ""
        return f"{metric} = {describe_bound(self.bound, paper_value)}{tolerance}"


@dataclass(frozen=True)
class Within(_WithBound):
    """|mean - bound| <= max(rel x |bound|, abs). Raises `ValueError` if neither is given."""

    rel: float | None = None
    abs: float | None = None

    def __post_init__(self) -> None:
        if self.rel is None and self.abs is None:
            raise ValueError("Within needs rel=, abs= or both")

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Compare the means; raises `NotTestableError`."""
        bound = resolve_bound(self.bound, metrics, paper_value).mean
        width = max((self.rel or 0.0) * max(bound, -bound), self.abs or 0.0)
        return bound - width <= metric.mean <= bound + width

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return for example `ratio within 5% of 0.831`."""
        widths = [] if self.rel is None else [f"{100 * self.rel:g}%"]
        widths += [] if self.abs is None else [f"{self.abs:g}"]
        return f"{metric} within {' or '.join(widths)} of {describe_bound(self.bound, paper_value)}"


@dataclass(frozen=True)
class CIExcludes:
    """The 95% confidence interval of the metric does not contain `value`; `side` says where it must lie."""

    value: float
    side: Literal["above", "below"] | None = None

    def __post_init__(self) -> None:
        if self.side not in (None, "above", "below"):
            raise ValueError(f"side is {self.side!r}; it may be 'above', 'below' or None")

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Compare the interval with the value; raises `NotTestableError` with one seed."""
        if metric.low is None or metric.high is None:
            raise NotTestableError("one seed gives no confidence interval")
        return (metric.low > self.value and self.side != "below") or (
            metric.high < self.value and self.side != "above"
        )

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return for example `95% CI of gain above 0`."""
        return f"95% CI of {metric} {self.side or 'excludes'} {number_text(self.value)}"

    def references(self) -> tuple[str, ...]:
        """Return nothing: it looks at its own metric only."""
        return ()

    def uses_paper_value(self) -> bool:
        """Return False: the value is its own."""
        return False


@dataclass(frozen=True, init=False)
class AllOf:
    """Every one of the criteria holds for the metric. Raises `ValueError` if there is none."""

    criteria: tuple[Criterion, ...]

    def __init__(self, *criteria: Criterion) -> None:
        if not criteria:
            raise ValueError("AllOf needs at least one criterion")
        object.__setattr__(self, "criteria", criteria)

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Ask every criterion, so that one which cannot be tested is never hidden by one that fails."""
        answers = [criterion.holds(metric, metrics, paper_value) for criterion in self.criteria]
        return all(answers)

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return the descriptions joined by `and`."""
        return " and ".join(criterion.describe(metric, paper_value) for criterion in self.criteria)

    def references(self) -> tuple[str, ...]:
        """Return the metrics that any of the criteria compares with."""
        return tuple(dict.fromkeys(name for criterion in self.criteria for name in criterion.references()))

    def uses_paper_value(self) -> bool:
        """Say whether any of the criteria compares with the paper's number."""
        return any(criterion.uses_paper_value() for criterion in self.criteria)


@dataclass(frozen=True)
class On:
    """The criterion holds for another metric than the claim's: for rules that look at two metrics.

    Raises `ValueError` for a criterion without a bound: the paper's number belongs to the claim's own metric.
    """

    metric: str
    criterion: Criterion

    def __post_init__(self) -> None:
        if self.criterion.uses_paper_value():
            raise ValueError(f"the criterion on {self.metric} needs a bound of its own")

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Ask the criterion about the other metric; raises `NotTestableError`."""
        return self.criterion.holds(resolve_bound(self.metric, metrics, None), metrics, None)

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return the description with the other metric's name."""
        return self.criterion.describe(self.metric)

    def references(self) -> tuple[str, ...]:
        """Return the other metric and what the criterion compares it with."""
        return (self.metric, *self.criterion.references())

    def uses_paper_value(self) -> bool:
        """Return False: see above."""
        return False


@dataclass(frozen=True)
class NoRule:
    """No pass rule: the number is reported, and no verdict is given."""

    why: str

    def holds(self, metric: Estimate, metrics: Mapping[str, Estimate], paper_value: float | None) -> bool:
        """Never an answer; raises `NotTestableError` with the reason."""
        raise NotTestableError(self.why)

    def describe(self, metric: str, paper_value: float | None = None) -> str:
        """Return in words that there is no rule."""
        return f"{metric} is reported; there is no pass rule"

    def references(self) -> tuple[str, ...]:
        """Return nothing: it compares with nothing."""
        return ()

    def uses_paper_value(self) -> bool:
        """Return False: it compares with nothing."""
        return False
