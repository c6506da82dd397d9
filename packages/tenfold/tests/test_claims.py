import math

import pytest

from tenfold import AtLeast, CIExcludes, Claim, Estimate, Verdict
from tenfold.claims import judge
from tenfold.figures import title

METRICS = {"ppl": Estimate((1, 2, 3)), "dense": Estimate((2, 2, 2)), "broken": Estimate((1, math.nan))}


def claim(**changes: object) -> Claim:
    fields: dict[str, object] = {"metric": "ppl", "criterion": AtLeast("dense")}
    return Claim("C1", "It works.", "table 1", **(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "verdict", "reason"),
    [
        (claim(), Verdict.HELD, ""),
        (claim(criterion=AtLeast(2.5)), Verdict.DID_NOT_HOLD, ""),
        (claim(criterion=AtLeast(), paper_value=2.0), Verdict.HELD, ""),
        (claim(scales=("paper",)), Verdict.NOT_TESTED, "not tested at this scale"),
        (claim(needs=("docs", "books")), Verdict.NOT_TESTED, "not tested: data books not available"),
        (claim(needs=("docs",)), Verdict.HELD, ""),
        (
            claim(metric="time", modules=("json", "no_such_engine")),
            Verdict.NOT_TESTED,
            "not tested: no_such_engine is not installed",
        ),
        (claim(modules=("json",)), Verdict.HELD, ""),
        (claim(metric="time"), Verdict.NOT_TESTED, "not tested: metric time missing from the run"),
        (
            claim(criterion=AtLeast("sparse")),
            Verdict.NOT_TESTED,
            "not tested: metric sparse missing from the run",
        ),
        (claim(metric="broken"), Verdict.NOT_TESTED, "not tested: metric broken is not a number"),
    ],
)
def test_judge(given: Claim, verdict: Verdict, reason: str) -> None:
    assert judge(given, METRICS, "quick", lambda name: name == "docs") == (verdict, reason)


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        (claim(scales=("paper",)), True),
        (claim(criterion=AtLeast(2.5), needs=("books",)), False),
        (claim(metric="time"), None),
        (claim(criterion=AtLeast("sparse")), None),
    ],
)
def test_what_a_figure_says_of_a_claim(given: Claim, holds: bool | None) -> None:
    assert given.holds(METRICS) is holds
    told = {True: "yes", False: "no", None: "who knows"}[holds]
    assert title(given, METRICS, "yes", "no", "who knows") == told


def test_one_seed_gives_no_interval_and_no_verdict() -> None:
    metrics = {"ppl": Estimate((1,))}
    assert judge(claim(criterion=CIExcludes(0)), metrics, "quick", bool) == (
        Verdict.NOT_TESTED,
        "not tested: one seed gives no confidence interval",
    )


def test_data_is_asked_for_before_the_metric() -> None:
    """A run without the data has no metric either; the reason is the data."""
    given = claim(metric="books_ppl", needs=("books",))
    assert judge(given, METRICS, "quick", lambda name: False)[1] == "not tested: data books not available"


def test_impossible_claims_are_refused() -> None:
    with pytest.raises(ValueError, match=r"C1: scales \('tiny',\); they may be quick, laptop, paper"):
        claim(scales=("tiny",))
    with pytest.raises(ValueError, match="C1"):
        claim(scales=())
    with pytest.raises(ValueError, match="C1: the criterion has no bound and the claim no paper_value"):
        claim(criterion=AtLeast())


def test_verdicts_read_as_in_the_report() -> None:
    assert [str(verdict) for verdict in Verdict] == ["held", "did not hold", "not tested"]
