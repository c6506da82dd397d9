import math
from collections.abc import Mapping

import pytest

from tenfold import (
    Above,
    AllOf,
    AtLeast,
    AtMost,
    Below,
    CIExcludes,
    Criterion,
    Equals,
    Estimate,
    NotTestableError,
    On,
    Within,
)

# dense 2, 4, 6 (mean 4); lpa 1, 4, 7 (mean 4); pairwise below, equal, above.
METRICS = {
    "dense": Estimate((2, 4, 6)),
    "lpa": Estimate((1, 4, 7)),
    "best": Estimate((1, 2, 3)),
    "constant": Estimate((4,)),
    "two": Estimate((1, 2)),
}


def holds(criterion: Criterion, metric: str, paper: float | None = None, **more: Estimate) -> bool:
    metrics: Mapping[str, Estimate] = METRICS | more
    return criterion.holds(metrics[metric], metrics, paper)


@pytest.mark.parametrize(
    ("criterion", "metric", "expected"),
    [
        # equal means: only the strict ones fail
        (AtLeast("dense"), "lpa", True),
        (AtMost("dense"), "lpa", True),
        (Above("dense"), "lpa", False),
        (Below("dense"), "lpa", False),
        # ratio: 4 against 1.02 x 4 = 4.08 and 0.98 x 4 = 3.92
        (AtMost("dense", ratio=0.98), "lpa", False),
        (AtLeast("dense", ratio=1.02), "lpa", False),
        (Below("dense", ratio=1.02), "lpa", True),
        (Above("dense", ratio=0.98), "lpa", True),
        # numbers
        (AtLeast(4), "lpa", True),
        (Above(4), "lpa", False),
        (Above(3.999), "lpa", True),
        (Below(4.001), "lpa", True),
        # every seed, paired: lpa - dense = -1, 0, 1; best - dense = -1, -2, -3
        (AtMost("dense", every_seed=True), "lpa", False),
        (AtLeast("dense", every_seed=True), "lpa", False),
        (Below("dense", every_seed=True), "best", True),
        (Below(3, every_seed=True), "best", False),
        (AtMost(3, every_seed=True), "best", True),
        (AtMost("constant", every_seed=True), "best", True),
        # equals: every seed, with tolerance
        (Equals(4), "constant", True),
        (Equals(4), "lpa", False),
        (Equals(4, tolerance=3), "lpa", True),
        (Equals(4, tolerance=2.9), "lpa", False),
        (Equals("dense"), "dense", True),
        (Equals("dense", tolerance=1), "lpa", True),
        # within: means; 4 against 4.4 is off by 0.4, which is 1/11 of 4.4
        (Within(4.4, rel=0.1), "lpa", True),
        (Within(4.4, rel=0.09), "lpa", False),
        (Within(4.4, abs=0.41), "lpa", True),
        (Within(4.4, abs=0.39), "lpa", False),
        (Within(4.4, rel=0.01, abs=0.41), "lpa", True),
        (Within(-4.4, rel=0.1), "lpa", False),
        (Within("dense", rel=0), "lpa", True),
        # best: mean 2, 95% interval 2 +- 2.484 (see test_estimates): [-0.484, 4.484]
        (CIExcludes(4.4), "best", False),
        (CIExcludes(4.5), "best", True),
        (CIExcludes(4.5, side="below"), "best", True),
        (CIExcludes(4.5, side="above"), "best", False),
        (CIExcludes(-0.5, side="above"), "best", True),
        (CIExcludes(-0.5, side="below"), "best", False),
        (CIExcludes(-0.4, side="above"), "best", False),
        # together, and on another metric
        (AllOf(AtLeast(4), AtMost(4)), "lpa", True),
        (AllOf(AtLeast(4), Below(4)), "lpa", False),
        (On("best", AtMost(2)), "lpa", True),
        (AllOf(AtLeast(4), On("best", Below(2))), "lpa", False),
    ],
)
def test_golden_numbers(criterion: Criterion, metric: str, expected: bool) -> None:
    assert holds(criterion, metric) is expected


@pytest.mark.parametrize(
    ("criterion", "paper", "expected"),
    [
        (AtLeast(), 4, True),
        (Above(), 4, False),
        (AtMost(ratio=1.1), 3.7, True),
        (Below(ratio=1.1), 3.6, False),
        (Equals(tolerance=3), 4, True),
        (Within(rel=0.05), 4.2, True),
        (Within(rel=0.05), 4.3, False),
    ],
)
def test_a_bound_left_out_is_the_papers_number(criterion: Criterion, paper: float, expected: bool) -> None:
    assert holds(criterion, "lpa", paper) is expected
    assert criterion.uses_paper_value()
    with pytest.raises(NotTestableError, match="the paper gives no number"):
        holds(criterion, "lpa", None)


@pytest.mark.parametrize(
    "criterion",
    [AtLeast(1), AtMost(1), Above(1), Below(1), Equals(1, tolerance=9), Within(1, abs=99), CIExcludes(0)],
)
def test_nothing_holds_for_a_metric_that_is_not_a_number(criterion: Criterion) -> None:
    assert not holds(criterion, "broken", broken=Estimate((math.nan, math.nan)))


def test_infinity_is_worse_than_any_bound() -> None:
    diverged = Estimate((1.0, math.inf))
    assert not holds(AtMost("dense"), "diverged", diverged=diverged)
    assert holds(AtLeast("dense"), "diverged", diverged=diverged)
    assert not holds(Within(1, rel=0.5), "diverged", diverged=diverged)


def test_what_the_metrics_cannot_say_is_not_testable() -> None:
    with pytest.raises(NotTestableError, match="metric sparse missing from the run"):
        holds(AtLeast("sparse"), "lpa")
    with pytest.raises(NotTestableError, match="3 and 2 seeds cannot be paired"):
        holds(AtLeast("two", every_seed=True), "lpa")
    with pytest.raises(NotTestableError, match="one seed gives no confidence interval"):
        holds(CIExcludes(0), "constant")
    with pytest.raises(NotTestableError, match="one seed"):
        holds(AllOf(AtLeast(5), CIExcludes(0)), "constant")  # not hidden by the part that fails


def test_impossible_criteria_are_refused() -> None:
    with pytest.raises(ValueError, match="rel=, abs="):
        Within(3)
    with pytest.raises(ValueError, match=r"'left'.*'above', 'below'"):
        CIExcludes(0, side="left")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one criterion"):
        AllOf()
    with pytest.raises(ValueError, match="bound of its own"):
        On("dense", AtLeast())


@pytest.mark.parametrize(
    ("criterion", "text"),
    [
        (AtMost("dense", ratio=1.02), "lpa ≤ 1.02 × dense"),
        (Below("dense", every_seed=True), "lpa < dense, on every seed"),
        (Above(), "lpa > 3.5 (the paper)"),
        (Equals(115265025), "lpa = 115,265,025"),
        (Equals(1, tolerance=0.5), "lpa = 1 ± 0.5"),
        (Within(rel=0.05), "lpa within 5% of 3.5 (the paper)"),
        (Within(0, abs=0.1), "lpa within 0.1 of 0"),
        (CIExcludes(0), "95% CI of lpa excludes 0"),
        (CIExcludes(1, side="below"), "95% CI of lpa below 1"),
        (AllOf(AtLeast(1), On("best", AtMost(2))), "lpa ≥ 1 and best ≤ 2"),
    ],
)
def test_descriptions(criterion: Criterion, text: str) -> None:
    assert criterion.describe("lpa", 3.5) == text


def test_references_are_the_other_metrics() -> None:
    assert AtLeast("dense").references() == ("dense",)
    assert AtLeast(3).references() == CIExcludes(0).references() == ()
    both = AllOf(AtLeast("dense"), On("best", Below("dense")), Within("lpa", rel=1))
    assert both.references() == ("dense", "best", "lpa")


def test_criteria_are_values() -> None:
    assert AtLeast("dense", ratio=2) == AtLeast("dense", ratio=2) != AtMost("dense", ratio=2)
    assert isinstance(AllOf(Equals(1)), Criterion)
