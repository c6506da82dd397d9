"""Our verifiers as verl's reward manager: one in each of verl's reward workers."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from implicit_prime.errors import PrimeError
from implicit_prime.integrations.verl.filtering import JUDGED
from implicit_prime.verifiers.base import verify
from implicit_prime.verifiers.named import named_verifier


class VerifierRewardManager(RewardManagerBase):
    """Asks the verifiers of the configuration's [verifier] tables for the outcome of a response.

    The data is verl's: reward_model.ground_truth is the reference and, with several verifiers, "ability" says
    which one to ask. Verifiers run their own processes, and are waited for outside the event loop.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **others: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        settings: Any = OmegaConf.to_container(config.verifier, resolve=True)
        self.verifier = named_verifier(settings)
        self.several = len(settings) > 1

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward of the last response in `data`, and whether it was judged at all.

        Raises `PrimeError` for data without a reference, or an ability where there must be one.
        """
        item = data[-1:][0]
        return await self.loop.run_in_executor(None, self._judge, item)

    def _judge(self, item: Any) -> dict[str, Any]:
        ids = item.batch["responses"]
        real = item.batch["attention_mask"][-len(ids) :].bool()
        text = self.tokenizer.decode(ids[real], skip_special_tokens=True)
        (result,) = verify(self.verifier, [text], [self._reference(item.non_tensor_batch)])
        known = result.status != "error"
        info = {"acc": result.score, JUDGED: float(known)}
        return {"reward_score": result.score if known else 0.0, "reward_extra_info": info}

    def _reference(self, row: dict[str, Any]) -> Any:
        model = row.get("reward_model")
        if not isinstance(model, dict) or model.get("ground_truth") is None:
            raise PrimeError(f"a row has no reward_model.ground_truth; its columns are {sorted(row)}")
        if not self.several:
            return model["ground_truth"]
        if row.get("ability") is None:
            raise PrimeError("a row has no 'ability', which says which of the verifiers it is for")
        return str(row["ability"]), model["ground_truth"]
