from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_prm.reward_metrics import auc, auc_within_prompts, reward_metrics

SCORED = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 2)), min_size=1, max_size=20)


def wins(scored: list[tuple[int, bool, int]], within: bool) -> float:
    """The definition: over all pairs of a right and a wrong response, 1 for a win and 1/2 for a tie."""
    found = [
        (a > b) + (a == b) / 2
        for a, right, prompt in scored
        for b, other_right, other_prompt in scored
        if right and not other_right and (prompt == other_prompt or not within)
    ]
    return float(np.mean(found)) if found else math.nan


@given(SCORED)
def test_auc_is_the_share_of_pairs_won(scored: list[tuple[int, bool, int]]) -> None:
    scores, labels, groups = zip(*scored, strict=True)
    assert auc(scores, labels) == pytest.approx(wins(scored, within=False), nan_ok=True)
    assert auc_within_prompts(scores, labels, groups) == pytest.approx(wins(scored, within=True), nan_ok=True)


def test_metrics_of_responses() -> None:
    found = reward_metrics([2.0, -1.0, -3.0, 1.0], [1, 1, 0, 0])
    assert found == pytest.approx(
        {
            "rewards/chosen": 0.5,
            "rewards/rejected": -1.0,
            "rewards/margins": 1.5,
            "rewards/accuracies": 0.5,  # 2 and -3 have the sign of their label
            "rewards/auc": 0.75,  # only -1 against 1 is lost
        }
    )


def test_metrics_of_pairs() -> None:
    found = reward_metrics([[2.0, 1.0], [-1.0, 0.0]], [])
    assert found["rewards/accuracies"] == 0.5
    assert found["rewards/margins"] == 0.0
    assert found["rewards/auc"] == 0.5  # 2 beats both, -1 loses to both


def test_one_kind_alone_has_no_margin() -> None:
    assert reward_metrics([1.0, -1.0], [1, 1]) == {"rewards/chosen": 0.0, "rewards/accuracies": 0.5}
