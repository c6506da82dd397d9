"""The experiment: a small run ends with judged claims and figures; its parts measure what they are called."""

from __future__ import annotations

from math import inf

import pytest

from implicit_prime.reproduce.claims import CLAIMS, FEWER_ROLLOUTS, MORE_AREA, Reported, bootstrap_interval
from tenfold import Estimate, NotTestableError


@pytest.mark.parametrize(
    ("rule", "samples", "word"),
    [
        (MORE_AREA, (1.0, 2.0, 3.0), "supports"),
        (MORE_AREA, (-1.0, -2.0, -3.0), "contradicts"),
        (MORE_AREA, (-1.0, 2.0, 0.5), "no difference"),
        (FEWER_ROLLOUTS, (0.4, 0.5, 0.6), "supports"),
        (FEWER_ROLLOUTS, (1.5, inf, 2.0), "contradicts"),
        (FEWER_ROLLOUTS, (0.5, inf, 0.7), "no difference"),
    ],
)
def test_what_the_seeds_say_of_a_comparison_is_one_of_three_words(
    rule: Reported, samples: tuple[float, ...], word: str
) -> None:
    assert rule.word(Estimate(samples)) == word
    with pytest.raises(NotTestableError, match=word):
        rule.holds(Estimate(samples), {}, None)


def test_the_interval_of_three_seeds_reaches_from_the_least_to_the_most() -> None:
    # Three equal draws have probability 1/27 > 2.5% each.
    assert bootstrap_interval((3.0, 1.0, 2.0)) == (1.0, 3.0)


def test_one_seed_is_no_comparison() -> None:
    with pytest.raises(NotTestableError, match="one seed"):
        MORE_AREA.holds(Estimate((1.0,)), {}, None)


def test_only_the_comparisons_with_outcomes_alone_have_no_pass_rule() -> None:
    reported = {claim.id for claim in CLAIMS if isinstance(claim.criterion, Reported)}
    assert reported == {claim.id for claim in CLAIMS if claim.id.startswith("R")}
