"""Rollouts for verl without a rollout engine: engines need a GPU, and the rest does not (`verl_on_cpu`).

Responses are random words, half of them the right answer; no weights are sent anywhere.
"""

from __future__ import annotations

import random
from typing import Any

import ray
from verl.workers.rollout.replica import TokenOutput

from implicit_prime.integrations.verl.runner import _TaskRunner

ANSWER = (3, 1)
"""The tokens of w0 and the end."""


class RandomWords:
    """In the place of verl's client of rollout servers."""

    async def generate(self, request_id: str, **_: Any) -> TokenOutput:
        words = [*(random.randrange(4, 48) for _ in range(random.randrange(1, 6))), 1]
        return TokenOutput(
            token_ids=list(random.choice((ANSWER, words))),
            extra_fields={"min_global_steps": 0, "max_global_steps": 0},
        )


class StandInManager:
    """verl's manager of agent loops, with that client."""

    @classmethod
    def create(cls, config: Any, llm_client: Any, **others: Any) -> Any:
        from verl.trainer.ppo.v1 import AgentLoopManagerTQ

        return AgentLoopManagerTQ.create(config=config, llm_client=RandomWords(), **others)


class _StandInRunner(_TaskRunner):
    def run(self, config: Any) -> None:
        from verl.workers.rollout.llm_server import LLMServerManager

        from implicit_prime.integrations.verl.trainer import PrimePPOTrainer

        LLMServerManager.rollout_replica_class = None  # verl would import the engine's
        PrimePPOTrainer._enable_hybrid_replicas = False  # verl's switch: no engines beside the trainer
        PrimePPOTrainer.on_init_end = PrimePPOTrainer.on_step_end = lambda self: None  # which sends weights
        super().run(config)


StandInRunner = ray.remote(_StandInRunner)
