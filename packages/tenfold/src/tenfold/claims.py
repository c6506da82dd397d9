"""A sentence of a paper as a check, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

from tenfold.criteria import Criterion, NotTestableError
from tenfold.estimates import Estimate

Scale: TypeAlias = Literal["quick", "laptop", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class Verdict(StrEnum):
    """What a finished run says about a claim."""

    HELD = "held"
    DID_NOT_HOLD = "did not hold"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, its pass rule fixed before any run.

    `metric` names the metric of the run that `criterion` looks at, `source` where the paper says it,
    `paper_value` the number printed there and `paper_text` how to show it where a number is not enough.
    `scales` are those at which it may be tested, `needs` the data sets and `modules` the importable Python
    modules without which it is not.

    Raises `ValueError` for an unknown scale, and for a criterion that compares with the paper's
    number where no number is given.
    """

    id: str
    statement: str
    source: str
    metric: str
    criterion: Criterion
    paper_value: float | None = None
    paper_text: str = ""
    scales: tuple[str, ...] = SCALES
    needs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    unit: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        unknown = [scale for scale in self.scales if scale not in SCALES]
        if unknown or not self.scales:
            raise ValueError(f"claim {self.id}: scales {self.scales!r}; they may be {', '.join(SCALES)}")
        if self.criterion.uses_paper_value() and self.paper_value is None:
            raise ValueError(f"claim {self.id}: the criterion has no bound and the claim no paper_value")

    @property
    def condition(self) -> str:
        """The criterion in words, with the metric's name."""
        return self.criterion.describe(self.metric, self.paper_value)

    def holds(self, metrics: Mapping[str, Estimate]) -> bool | None:
        """Say whether the metrics meet the criterion, at any scale; None where they cannot say.

        For what a figure says; the verdict of a run is `judge`'s.
        """
        try:
            return self.criterion.holds(metrics[self.metric], metrics, self.paper_value)
        except (KeyError, NotTestableError):
            return None


def judge(
    claim: Claim,
    metrics: Mapping[str, Estimate],
    scale: str,
    has_data: Callable[[str], bool],
) -> tuple[Verdict, str]:
    """Return the verdict and, where the claim is not tested, the reason ("" otherwise)."""
    reason = _why_not_tested(claim, metrics, scale, has_data)
    if reason:
        return Verdict.NOT_TESTED, f"not tested{reason}"
    try:
        holds = claim.criterion.holds(metrics[claim.metric], metrics, claim.paper_value)
    except NotTestableError as error:
        return Verdict.NOT_TESTED, f"not tested: {error}"
    return (Verdict.HELD if holds else Verdict.DID_NOT_HOLD), ""


def _why_not_tested(
    claim: Claim, metrics: Mapping[str, Estimate], scale: str, has_data: Callable[[str], bool]
) -> str:
    if scale not in claim.scales:
        return " at this scale"
    for name in claim.needs:
        if not has_data(name):
            return f": data {name} not available"
    for name in claim.modules:
        if find_spec(name) is None:
            return f": {name} is not installed"
    for name in (claim.metric, *claim.criterion.references()):
        if name not in metrics:
            return f": metric {name} missing from the run"
        if any(math.isnan(sample) for sample in metrics[name].samples):
            return f": metric {name} is not a number"
    return ""
