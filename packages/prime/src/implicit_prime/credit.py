"""From rewards and outcomes to the advantages that the settings ask for (section 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from implicit_prime import core
from implicit_prime.responses import Responses

if TYPE_CHECKING:
    from implicit_prime.config import PrimeConfig


def process_weight(args: PrimeConfig, accuracy: float) -> float:
    """The factor of process rewards; of "accuracy" max(0, 2 acc - 1), 0 where no accuracy is known."""
    if args.process_weight == "accuracy":
        return max(0.0, 2 * accuracy - 1) if accuracy == accuracy else 0.0
    return float(args.process_weight)


def token_advantages(
    args: PrimeConfig,
    batch: Responses,
    process: Tensor | None,
    weight: float = 1.0,
    values: Tensor | None = None,
) -> Tensor:
    """Advantages of every token before whitening: float32 [B, T].

    `process` [B, T] is normalised already, None for outcomes alone, and `weight` is its `process_weight`;
    `values` [B, T] are those of the value head, for "ppo".
    """
    gammas = args.process_gamma, args.outcome_gamma
    outcome, mask = batch.outcomes, batch.mask
    if args.advantage == "grpo":
        alone = core.grpo_advantage(None, outcome, mask, batch.groups, *gammas)
        if process is None:
            return alone
        # Eq. 7 divides process rewards by their own spread, in which a factor of them would be lost.
        nothing = torch.zeros_like(outcome)
        return alone + weight * core.grpo_advantage(process, nothing, mask, batch.groups, *gammas)
    process = None if process is None else weight * process
    if args.advantage == "rloo":
        return core.rloo_advantage(
            process, outcome, mask, batch.groups, *gammas, baseline=args.process_baseline
        )
    if args.advantage == "reinforce":
        return core.reinforce_advantage(process, outcome, mask, *gammas)
    if args.advantage == "ppo":
        assert values is not None
        return core.gae_advantage(process, outcome, values, mask, args.process_gamma, args.gae_lambda)
    assert process is not None  # `prepare_models` sees to it
    return core.implicit_value_advantage(process, outcome, mask)
