"""The accuracy filter (section 2.1) in verl's replay buffer: what is kept, and when to give up refilling."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import torch
import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from implicit_prime import core
from implicit_prime.config import PrimeConfig
from implicit_prime.errors import PrimeError

JUDGED = "judged"
"""In a response's reward_extra_info: 1, or 0 where the verifier failed and the score means nothing."""


class AccuracyReplayBuffer(ReplayBuffer):
    """verl's replay buffer of a synchronous trainer; it evicts prompts outside `prime.accuracy_range`.

    verl refills what was evicted twice over, and drops the prompts that are then too many. `sample` raises
    `PrimeError`, with the accuracies seen, when `max_refill_rounds` times a step's prompts did not do.
    """

    def __init__(self, *args: Any, prime: PrimeConfig, **others: Any) -> None:
        super().__init__(*args, **others)
        self.prime = prime
        self._accuracies: dict[str, float] = {}
        self._kept: set[str] = set()

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """As verl's, with the share of prompts that passed the filter as "prime/pass_rate"."""
        self._accuracies.clear()
        self._kept.clear()
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if self._accuracies:
            metrics["prime/pass_rate"] = len(self._kept) / len(self._accuracies)
        return batch, metrics

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter[float]]:
        """The prompts to be evicted of those that are done, and how many there are of each accuracy."""
        if partition_id == "val" or self.filter_groups_metric is None:
            return set(), Counter()
        finished = self.finished_keys[partition_id] | self.failure_keys[partition_id]
        self._judge(partition_id, finished - self._accuracies.keys())
        evicted = finished - self._kept
        self._check_rounds()
        return evicted, Counter(round(self._accuracies[uid], 3) for uid in evicted)

    def _judge(self, partition_id: str, uids: set[str]) -> None:
        responses: dict[str, list[str]] = defaultdict(list)
        for key in self.partitions[partition_id]:
            if (uid := key.split("_")[0]) in uids:
                responses[uid].append(key)
        for uid in uids:
            keys = responses[uid]
            outcomes = self._outcomes(partition_id, keys) if len(keys) > 1 else torch.empty(0)
            self._accuracies[uid] = float(outcomes.nanmean())
            if self._passes(outcomes) and not (
                self.prime.filter_truncated and self._cut_off(partition_id, keys)
            ):
                self._kept.add(uid)

    def _outcomes(self, partition_id: str, keys: list[str]) -> torch.Tensor:
        """The scores of one prompt's responses, NaN where the verifier failed: float32 [K]."""
        data = tq.kv_batch_get(
            keys=keys, partition_id=partition_id, select_fields=["rm_scores", "extra_fields"]
        )
        scores = torch.stack([row.sum().float() for row in data["rm_scores"].unbind()])
        return scores.masked_fill(~judged(data["extra_fields"]), float("nan"))

    def _passes(self, outcomes: torch.Tensor) -> bool:
        if len(outcomes) < 2 or self.prime.accuracy_range is None:
            return False
        return bool(core.accuracy_filter(outcomes[None], *self.prime.accuracy_range)[0])

    def _cut_off(self, partition_id: str, keys: list[str]) -> bool:
        tags = self.partitions[partition_id]
        return any(tags[key]["response_len"] >= self.prime.max_completion_length for key in keys)

    def _check_rounds(self) -> None:
        drawn, prompts = len(self._accuracies), self.prime.prompts_per_step
        if len(self._kept) >= prompts or drawn < self.prime.max_refill_rounds * prompts:
            return
        seen = Counter(f"{accuracy:.2f}" for accuracy in self._accuracies.values())
        table = ", ".join(f"{accuracy}: {count}" for accuracy, count in sorted(seen.items()))
        raise PrimeError(
            f"{len(self._kept)} of {drawn} prompts have an accuracy in {self.prime.accuracy_range}, and a "
            f"step needs {prompts}; their accuracies were {table} (nan: no two responses that could be "
            "judged). Take easier or harder prompts, more responses to each (rollout.n), another "
            "accuracy_range, or a greater max_refill_rounds"
        )


def judged(extra_fields: Any) -> torch.Tensor:
    """Which rows have a verdict, by their extra fields: bool [B]; all, if rewards are not ours."""
    verdicts = []
    for row in extra_fields:
        fields = getattr(row, "data", row)
        verdicts.append(bool(fields.get("reward_extra_info", {}).get(JUDGED, 1)))
    return torch.tensor(verdicts, dtype=torch.bool)
