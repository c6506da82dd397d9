"""Scored responses as frames: the hand values of section 7, test 1."""

from __future__ import annotations

import json

import numpy as np
import pytest

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.frames import to_frame
from implicit_prm.responses import ScoredResponse
from implicit_prm.steps import Step

SCORED = ScoredResponse(
    id="a",
    token_rewards=np.float32([0.1, -0.05, -0.2]),
    q_values=np.float32([0.1, 0.05, -0.15]),
    step_rewards=np.float32([0.05, -0.2]),
    outcome_reward=-0.15,
    steps=[Step("2+2=4\n\n", 0, 7), Step("4", 7, 8)],
    token_ids=(5, 6, 7),
    offsets=((0, 3), (3, 7), (7, 8)),
    truncated=False,
)
LINE = json.loads(json.dumps({**SCORED.to_dict(), "prompt": "q", "label": True}))


def test_a_row_a_response_keeps_the_other_columns_of_a_line() -> None:
    frame = to_frame([SCORED, LINE])
    assert frame["outcome_reward"].tolist() == [-0.15, -0.15]
    assert frame["lowest_step_reward"].to_numpy() == pytest.approx([-0.2, -0.2])
    assert frame.loc[1, ["n_steps", "n_tokens", "completion", "prompt", "label"]].tolist() == [
        *(2, 3, "2+2=4\n\n4", "q", True)
    ]
    assert not {"steps", "token_rewards", "offsets"} & set(frame.columns)


def test_a_row_a_step_has_its_reward_and_the_q_value_at_its_end() -> None:
    frame = to_frame([LINE], "step")
    assert frame["text"].tolist() == ["2+2=4\n\n", "4"]
    assert frame["reward"].to_numpy() == pytest.approx([0.05, -0.2])
    assert frame["q_value"].to_numpy() == pytest.approx([0.05, -0.15])


def test_a_row_a_token_says_its_step_and_rewards_add_up_to_those_of_the_steps() -> None:
    frame = to_frame([SCORED], "token")
    assert frame["step"].tolist() == [0, 0, 1]
    assert frame["text"].tolist() == ["2+2", "=4\n\n", "4"]
    assert frame.groupby("step")["reward"].sum().to_numpy() == pytest.approx([0.05, -0.2])
    assert frame["q_value"].to_numpy() == pytest.approx(frame["reward"].cumsum())


def test_another_level_is_told() -> None:
    with pytest.raises(
        ImplicitPRMError, match="no level 'word' of a frame; there are: response, step, token"
    ):
        to_frame([SCORED], "word")  # type: ignore[arg-type]
