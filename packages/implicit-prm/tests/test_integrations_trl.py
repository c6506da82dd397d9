"""The reward function of TRL: which tokens it scores, and two steps of GRPO with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.integrations.trl import ImplicitRewardFunc

MESSAGES = [{"role": "user", "content": "what is 2+2?"}]
ANSWER = "Step 1: so\n\nthe answer is 4."


class Recorder:
    """Stands for an `ImplicitPRM`: keeps the rows, and scores each with two steps."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.rows = tokenizer, []

    def score(self, rows: list[dict[str, Any]], steps: Any, batch_size: int) -> list[Any]:
        self.rows = rows
        return [
            SimpleNamespace(step_rewards=np.float32([n, 0.5]), outcome_reward=n + 0.5, steps=[None, None])
            for n in range(len(rows))
        ]


def test_sampled_tokens_are_scored_as_they_are_with_the_one_that_ended_them(tokenizer: Any) -> None:
    prm = Recorder(tokenizer)
    ids = [*reversed(tokenizer("4 is")["input_ids"]), tokenizer.eos_token_id]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert ids != tokenizer(text)["input_ids"]  # the policy's own way to write this text
    reply = [{"role": "assistant", "content": text}]
    ImplicitRewardFunc(prm)(["so", MESSAGES], [text, reply], [ids, ids])
    assert prm.rows == [
        {"id": "0", "prompt": "so", "completion_ids": ids},
        {"id": "1", "prompt": MESSAGES, "completion_ids": ids},
    ]


def test_the_text_is_scored_where_the_policy_has_another_tokenizer(tokenizer: Any) -> None:
    prm = Recorder(tokenizer)
    reply = [{"role": "assistant", "content": ANSWER}]
    ImplicitRewardFunc(prm)(["so", MESSAGES], [ANSWER, reply], [[5, 6, 7], [8]])
    assert prm.rows == [
        {"id": "0", "prompt": "so", "completion": ANSWER},
        {"id": "1", "prompt": MESSAGES, "completion": reply},
    ]
    with_tools = [*reply, {"role": "tool", "content": "4"}]
    ImplicitRewardFunc(prm)([MESSAGES], [with_tools], [tokenizer(ANSWER)["input_ids"]])
    assert prm.rows[0]["completion"] == with_tools


def test_an_empty_completion_is_scored_as_the_end_alone(tokenizer: Any) -> None:
    prm = Recorder(tokenizer)
    ImplicitRewardFunc(prm)(["so"], [""])
    assert prm.rows[0]["completion_ids"] == [tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("aggregate", "rewards"), [("min", [0, 0.5, 0.5]), ("sum", [0.5, 1.5, 2.5]), ("last", [0.5, 0.5, 0.5])]
)
def test_rewards_are_the_step_rewards_aggregated(
    tokenizer: Any, aggregate: str, rewards: list[float]
) -> None:
    logged: dict[str, float] = {}
    reward = ImplicitRewardFunc(Recorder(tokenizer), aggregate)
    assert reward(["a"] * 3, ["b"] * 3, label=[1, 2, 3], log_metric=logged.__setitem__) == rewards
    assert logged == {f"implicit_{aggregate}/outcome": 1.5, f"implicit_{aggregate}/steps": 2.0}


def test_an_unknown_aggregation_is_told_before_the_first_rollouts(tokenizer: Any) -> None:
    with pytest.raises(ImplicitPRMError, match="best"):
        ImplicitRewardFunc(Recorder(tokenizer), "best")


@pytest.mark.slow  # importing trl takes long
def test_grpo_trains_for_two_steps_on_implicit_rewards(
    tokenizer: Any, tiny_llama: Callable[..., Any], tmp_path: Path
) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from implicit_prm import ImplicitPRM

    size = len(tokenizer)
    prm = ImplicitPRM(tiny_llama(1, vocab_size=size), tokenizer, tiny_llama(2, vocab_size=size))
    reward = ImplicitRewardFunc(prm, "sum")
    called: list[list[float]] = []

    class Watched(ImplicitRewardFunc):
        def __call__(self, prompts: Any, completions: Any, completion_ids: Any = None, **columns: Any) -> Any:
            called.append(super().__call__(prompts, completions, completion_ids, **columns))
            rows = [
                {"prompt": prompt, "completion_ids": ids}
                for prompt, ids in zip(prompts, completion_ids, strict=True)
            ]
            assert called[-1] == pytest.approx([each.outcome_reward for each in prm.score(rows)], abs=1e-6)
            return called[-1]

    trainer = GRPOTrainer(
        model=tiny_llama(0, vocab_size=size),
        reward_funcs=[Watched(prm, reward.aggregate)],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=6,
            max_steps=2,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            report_to="none",
        ),
        train_dataset=Dataset.from_dict({"prompt": ["what is 1+1?", "what is 2+2?"] * 4}),
        processing_class=tokenizer,
    )
    trainer.train()
    assert len(called) == 2
    logged = [entry for entry in trainer.state.log_history if "rewards/implicit_sum/mean" in entry]
    assert [entry["rewards/implicit_sum/mean"] for entry in logged] == pytest.approx(
        [float(np.mean(rewards)) for rewards in called], abs=1e-5
    )
    assert "implicit_sum/outcome" in logged[0]
