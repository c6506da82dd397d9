"""The settings' estimator with the weight of process rewards that is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from implicit_prime import core
from implicit_prime.config import PrimeConfig
from implicit_prime.credit import token_advantages
from implicit_prime.responses import Responses

MASK = torch.arange(4) < torch.tensor([4, 2, 3, 4, 1, 3])[:, None]
OUTCOME = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])
PROCESS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * MASK
BATCH = Responses(MASK.long(), MASK, MASK, OUTCOME, GROUPS, torch.zeros(MASK.shape))
GAMMAS = {"process_gamma": 0.9, "outcome_gamma": 0.8}


def advantages(weight: float, process: torch.Tensor | None = PROCESS, **settings: Any) -> torch.Tensor:
    args = PrimeConfig(output_dir="-", **{**GAMMAS, **settings})
    return token_advantages(args, BATCH, process, weight)


@pytest.mark.parametrize("advantage", ["rloo", "grpo", "reinforce"])
def test_the_process_part_of_an_advantage_is_in_proportion_to_its_weight(advantage: Any) -> None:
    alone = advantages(1.0, None, advantage=advantage)
    whole, tenth = (advantages(weight, advantage=advantage) - alone for weight in (1.0, 0.1))
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(tenth, 0.1 * whole)
    assert torch.equal(advantages(0.0, advantage=advantage), alone)


def test_grpo_of_weight_one_is_equation_7_bit_for_bit() -> None:
    equation = core.grpo_advantage(PROCESS, OUTCOME, MASK, GROUPS, *GAMMAS.values())
    assert torch.equal(advantages(1.0, advantage="grpo"), equation)
