"""Advantages of process rewards and outcomes, as verl's estimators.

verl hands an estimator one tensor of rewards, that of the outcomes. The trainer gives it the process rewards
of the same rows beside that: see `process_rewards`. Without them, as under verl's own trainers, there are the
outcomes alone: verl's algorithm.gamma then is the discount, and advantages are whitened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from implicit_prime import core
from implicit_prime.config import Advantage, PrimeConfig
from implicit_prime.credit import token_advantages
from implicit_prime.errors import PrimeError
from implicit_prime.responses import Responses

ESTIMATORS = {f"prime_{name}": name for name in get_args(Advantage) if name != "ppo"}
"""verl's names of the estimators, and PRIME's. Of PPO verl has its own, which needs its critic."""

_GIVEN: ContextVar[tuple[Tensor | None, float, PrimeConfig] | None] = ContextVar(
    "process_rewards", default=None
)


@contextmanager
def process_rewards(process: Tensor | None, settings: PrimeConfig, weight: float = 1.0) -> Iterator[None]:
    """Inside, estimators add process rewards [B, T], normalised already, times `weight` to the outcomes."""
    token = _GIVEN.set((process, weight, settings))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def group_numbers(uids: Sequence[Any]) -> Tensor:
    """verl's names of prompts as numbers: int64 [B]."""
    _, numbers = np.unique(np.asarray(uids, dtype=str), return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64))


def learnable(mask: Tensor, groups: Tensor) -> Tensor:
    """The rows that can be learned from: int64 [n].

    Not the rows without a token, with which verl fills up batches and which the trainer leaves out, nor one
    that is then alone in its group. `mask` [B, T], `groups` [B].
    """
    present = mask.bool().any(1)
    members = torch.bincount(groups[present], minlength=int(groups.max()) + 1 if len(groups) else 0)
    return (present & (members[groups] >= 2)).nonzero()[:, 0]


def _estimator(name: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    def estimate(
        token_level_rewards: Tensor,
        response_mask: Tensor,
        index: Sequence[Any],
        config: Any = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor]:
        """(advantages, returns before whitening), float32 [B, T]; 0 on rows not to be learned from."""
        process, weight, settings = _GIVEN.get() or (None, 1.0, _outcome_settings(config))
        if process is None and name == "implicit_value":
            raise PrimeError(
                "advantage is 'implicit_value', and there are no process rewards to be the values"
            )
        settings = replace(settings, advantage=name)
        mask, groups = response_mask.bool(), group_numbers(index)
        rows = learnable(mask, groups)
        batch = Responses(  # prompts are not needed, and have no tokens here
            input_ids=mask.long(),
            attention_mask=mask,
            mask=mask,
            outcomes=token_level_rewards.sum(-1).float(),
            groups=groups,
            log_probs=torch.zeros(mask.shape),
        ).select(rows)
        width = batch.mask.shape[1]
        mine = None if process is None else process[rows, :width]
        returns = token_advantages(settings, batch, mine, weight)
        found = core.whiten(returns, batch.mask) if settings.whiten else returns
        return _spread(found, rows, mask), _spread(returns, rows, mask)

    estimate.__name__ = f"prime_{name}"
    return estimate


def _spread(values: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    whole = torch.zeros(mask.shape)
    whole[rows, : values.shape[1]] = values.float()
    return whole


def _outcome_settings(config: Any) -> PrimeConfig:
    gamma = float(config.get("gamma", 1.0)) if config is not None else 1.0
    return PrimeConfig(output_dir="-", process_gamma=gamma, outcome_gamma=gamma)


for verl_name, our_name in ESTIMATORS.items():
    register_adv_est(verl_name)(_estimator(our_name))
