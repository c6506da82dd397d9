"""The gradient of a batch, read in segments with carried memory (section 2.7).

A segment is forward, then backward at once, from the memory of the one before it, cut off from its graph; the
gradients add up. Every term is divided by its weight over the whole batch, known before the first segment, so
the sum does not depend on how the batch is cut into segments, threads or processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from omnirl.model.losses import context_weights, policy_loss, policy_weight, world_losses
from omnirl.model.memory import Memory, detach
from omnirl.model.modeling import OmniRL, OmniRLOutput

Batch = dict[str, Tensor]
INPUTS = ("seen", "tags", "actions", "rewards")
_TOKENS_AT_ONCE = 4096  # what a CPU thread reads at a time: fewer are slower, and so are more (the cache)


@dataclass(frozen=True)
class LossPlan:
    """The loss of a batch: λ's, warm-up (section 2.6), what the terms are divided by; and the precision."""

    weights: tuple[float, float, float]
    context_warmup: int
    segment: int | None
    precision: Literal["fp32", "bf16"]
    policy_total: Tensor
    world_total: Tensor

    @classmethod
    def of(
        cls,
        batch: Batch,
        num_actions: int,
        weights: tuple[float, float, float],
        warmup: int,
        segment: int | None,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> LossPlan:
        """The plan of one batch, its totals over this process's rows."""
        steps = context_weights(0, batch["labels"].shape[1], warmup).to(batch["labels"].device)
        real = (batch["actions"] < num_actions)[:, :-1].sum().to(steps.dtype)
        policy = policy_weight(batch["labels"], steps, num_actions)
        return cls(weights, warmup, segment, precision, policy, real)


def batch_gradients(
    model: OmniRL, batch: Batch, plan: LossPlan, threads: int = 1
) -> tuple[list[Tensor], Tensor]:
    """The gradient of every parameter, and the terms (3,) of the loss: policy, next state, reward.

    `batch` has observations, tags, actions, labels (B, T) int64 and rewards (B, T) float32, and may have
    targets (B, T, A). With several threads each reads some of the rows; the parts are added in the order of
    the rows, so the result does not depend on which thread is faster.
    """
    rows = len(batch["labels"])
    batch = {**batch, "seen": model.hide_states(batch["observations"])}
    if threads == 1 and batch["labels"].device.type != "cpu":
        return _rows_gradients(model, batch, plan)
    tokens = min(plan.segment or batch["labels"].shape[1], batch["labels"].shape[1]) * model.layout.size
    size = min(max(1, _TOKENS_AT_ONCE // tokens), -(-rows // threads))
    pieces = [{key: value[low : low + size] for key, value in batch.items()} for low in range(0, rows, size)]
    if threads == 1:
        results = [_rows_gradients(model, piece, plan) for piece in pieces]
    else:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(lambda piece: _rows_gradients(model, piece, plan), pieces))
    gradients, losses = results[0]
    for more, loss in results[1:]:
        torch._foreach_add_(gradients, more)
        losses = losses + loss
    return gradients, losses


def _rows_gradients(model: OmniRL, batch: Batch, plan: LossPlan) -> tuple[list[Tensor], Tensor]:
    parameters = list(model.parameters())
    total: list[Tensor] = []
    terms = torch.zeros(3, device=batch["labels"].device)
    memory: Memory | None = None
    for start, stop in segments(batch["labels"].shape[1], plan.segment):
        seen, tags, actions, rewards = (batch[key][:, start:stop] for key in INPUTS)
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
            output = model.read(seen, tags, actions, rewards, memory)
        memory = detach(output.memory)
        losses = _terms(output, batch, start, stop, plan, model.config.num_actions)
        loss = torch.stack([w * term for w, term in zip(plan.weights, losses, strict=True) if w]).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        if total:
            torch._foreach_add_(total, gradients)
        else:
            total = list(gradients)
        terms = terms + torch.stack(losses).detach()
    return total, terms


def _terms(
    output: OmniRLOutput, batch: Batch, start: int, stop: int, plan: LossPlan, num_actions: int
) -> tuple[Tensor, Tensor, Tensor]:
    labels = batch["labels"][:, start:stop]
    weights = context_weights(start, stop - start, plan.context_warmup).to(labels.device)
    targets = batch["targets"][:, start:stop] if "targets" in batch else None
    policy = policy_loss(output.policy_logits, labels, weights, targets) / plan.policy_total.clamp(min=1e-9)
    if output.next_state_logits is None:
        return policy, policy.new_zeros(()), policy.new_zeros(())
    seen = min(stop, batch["labels"].shape[1] - 1)  # the very last step has no next observation
    history = {
        "observations": batch["observations"][:, start : seen + 1],
        "actions": batch["actions"][:, start:seen],
        "rewards": batch["rewards"][:, start:seen],
    }
    reward = None if output.reward is None else output.reward[:, : seen - start]
    states, rewards = world_losses(output.next_state_logits[:, : seen - start], reward, history, num_actions)
    count = plan.world_total.clamp(min=1)
    return policy, states / count, rewards / count


def segments(length: int, size: int | None) -> Iterator[tuple[int, int]]:
    """Start and stop of each segment of at most `size` steps."""
    size = size or length
    for start in range(0, length, size):
        yield start, min(start + size, length)
