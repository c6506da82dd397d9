"""A scored response as a JSON line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from implicit_prm import ImplicitPRMError, ScoredResponse
from implicit_prm.steps import Step

FINITE = {"allow_nan": False, "allow_infinity": False}
floats = arrays.arrays(np.float32, st.integers(2, 20), elements=st.floats(width=32, **FINITE))


def response(token_rewards: np.ndarray, outcome: float = -0.15) -> ScoredResponse:
    return ScoredResponse(
        id="p1/3",
        token_rewards=token_rewards,
        q_values=token_rewards[::-1].copy(),
        step_rewards=token_rewards[:2].copy(),
        outcome_reward=outcome,
        steps=[Step("a = 1\n\n", 0, 7), Step("\u2192 2", 7, 10)],
        token_ids=tuple(range(5, 5 + len(token_rewards))),
        offsets=tuple((min(at, 10), min(at + 1, 10)) for at in range(len(token_rewards))),
        truncated=False,
    )


@given(floats, st.floats(**FINITE))
def test_a_json_line_gives_back_the_same_bits(token_rewards, outcome):
    scored = response(token_rewards, outcome)
    there = ScoredResponse.from_dict(json.loads(json.dumps(scored.to_dict())))
    assert there == scored
    assert there.token_rewards.tobytes() == scored.token_rewards.tobytes()
    assert (there.steps, there.token_ids, there.offsets) == (scored.steps, scored.token_ids, scored.offsets)


def test_float32_is_written_with_no_more_digits_than_it_has():
    line = json.dumps(response(np.array([0.1, -0.05, -0.2], np.float32)).to_dict())
    assert '"token_rewards": [0.1, -0.05, -0.2]' in line


def test_the_steps_texts_are_the_response():
    assert response(np.zeros(3, np.float32)).completion == "a = 1\n\n\u2192 2"


def test_other_rewards_are_another_response_and_keys_may_be_added():
    one, other = response(np.zeros(3, np.float32)), response(np.ones(3, np.float32))
    assert one != other
    assert ScoredResponse.from_dict({**one.to_dict(), "correct": True}) == one


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"q_values": None}, "the response 'r' is not as `ScoredResponse.to_dict` writes it; score it again"),
        ({"step_rewards": ["a"]}, "could not convert"),
        ({"offsets": [1, 2, 3]}, "cannot unpack"),
        ({"token_rewards": [0.5]}, "rewards are more or fewer than tokens or steps"),
        ({"steps": [], "step_rewards": []}, "rewards are more or fewer than tokens or steps"),
        ({"outcome_reward": float("nan")}, "has a reward that is not finite; score it again"),
        ({"steps": [{"text": "a"}]}, "KeyError"),
    ],
)
def test_what_is_no_scored_response_is_told_by_its_id(change, told):
    row = response(np.zeros(3, np.float32)).to_dict() | {"id": "r"}
    with pytest.raises(ImplicitPRMError, match=told):
        ScoredResponse.from_dict(row | change)


def test_a_missing_key_is_named():
    row = response(np.zeros(3, np.float32)).to_dict()
    del row["q_values"]
    with pytest.raises(ImplicitPRMError, match=r"KeyError.*q_values"):
        ScoredResponse.from_dict(row)
