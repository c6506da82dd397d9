"""An implicit PRM as a reward function of TRL: `GRPOTrainer(reward_funcs=[ImplicitRewardFunc(prm)])`.

Nothing of TRL is imported: a reward function is a callable, and the data formats are plain columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from implicit_prm.aggregation import aggregate_all
from implicit_prm.steps import SplitBy

if TYPE_CHECKING:
    from implicit_prm.model import ImplicitPRM

Text: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A text, or messages."""


class ImplicitRewardFunc:
    """Rewards of completions: the step rewards of each, aggregated to one number (section 2.4).

    aggregate   how, by the names of `implicit_prm.aggregation`: "min" is the paper's, "sum" is h
    steps       where a completion's steps end, see `implicit_prm.steps`
    batch_size  completions that are scored together

    Where the policy shares the PRM's tokenizer the sampled tokens themselves are scored, the one that ended
    the completion included. Otherwise its text is, without an end; an empty one is scored as the end alone.
    The rewards of one prompt's completions have a common offset without meaning (Proposition 3.1 at t = 0),
    which the advantages of GRPO and RLOO take off.
    """

    def __init__(
        self, prm: ImplicitPRM, aggregate: str = "min", *, steps: SplitBy = "paragraph", batch_size: int = 8
    ) -> None:
        aggregate_all([[0.0]], aggregate)  # an unknown name is told now, not after the first rollouts
        self.prm, self.aggregate, self.steps, self.batch_size = prm, aggregate, steps, batch_size
        self.__name__ = f"implicit_{aggregate}"  # TRL logs the reward by it

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """One reward for each of the B completions.

        `completion_ids` are the sampled tokens of each. The other columns of the data are not looked at; of
        what TRL passes besides them `log_metric` gets the mean outcome reward and the mean number of steps.
        Raises `ImplicitPRMError` as `ImplicitPRM.score` does.
        """
        ids = completion_ids if completion_ids is not None else [()] * len(completions)
        rows = [
            {"id": str(number), **self._row(prompt, completion, tokens)}
            for number, (prompt, completion, tokens) in enumerate(zip(prompts, completions, ids, strict=True))
        ]
        scored = self.prm.score(rows, steps=self.steps, batch_size=self.batch_size)
        if log_metric := columns.get("log_metric"):
            log_metric(f"{self.__name__}/outcome", float(np.mean([each.outcome_reward for each in scored])))
            log_metric(f"{self.__name__}/steps", float(np.mean([len(each.steps) for each in scored])))
        return aggregate_all([each.step_rewards for each in scored], self.aggregate).tolist()

    def _row(self, prompt: Text, completion: Text, tokens: Sequence[int]) -> dict[str, Any]:
        tokenizer = self.prm.tokenizer
        text = _only_text(completion)
        if tokens and text == tokenizer.decode(list(tokens), skip_special_tokens=True):
            return {"prompt": prompt, "completion_ids": tokens}
        if text == "":
            return {"prompt": prompt, "completion_ids": [tokenizer.eos_token_id]}
        return {"prompt": prompt, "completion": completion}


def _only_text(completion: Text) -> str | None:
    """The text of a completion of one message; None of several, which tools wrote in part."""
    if isinstance(completion, str):
        return completion
    return completion[0]["content"] if len(completion) == 1 else None
