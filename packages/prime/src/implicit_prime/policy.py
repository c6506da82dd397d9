"""The policy's gradient steps on a step's responses, and the value head of PPO (section 2.3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.distributed
from torch import Tensor, nn

from implicit_prime.core import clip_fraction, kl_loss, loss_weights, ppo_clip_loss
from implicit_prime.learner import Learner, by_length, shared_out, spread
from implicit_prime.responses import Responses
from implicit_prime.rollout.weights import base_model

if TYPE_CHECKING:
    from accelerate import Accelerator

    from implicit_prime.config import PrimeConfig


class _Part(NamedTuple):
    """Sums over a micro-batch that add up to those of the mini-batch, but for the clip fraction's tokens."""

    loss: float
    kl: float
    value: float
    clipped: float
    tokens: int


class Policy:
    """The policy as a learner, with a value head where advantage is "ppo"."""

    def __init__(
        self, model: nn.Module, args: PrimeConfig, accelerator: Accelerator, adapter: str | None = None
    ) -> None:
        self.args = args
        self.accelerator = accelerator
        self.learner = Learner(
            model,
            accelerator,
            learning_rate=args.learning_rate,
            weight_decay=args.weight_decay,
            max_grad_norm=args.max_grad_norm,
            adapter=adapter,
        )
        self.value = ValueHead(self.learner, args.value_learning_rate) if args.advantage == "ppo" else None

    @torch.no_grad()
    def read(self, batch: Responses) -> tuple[Tensor, Tensor | None]:
        """Log-probs of the responses, and the values before their tokens if there is a value head: [B, T]."""
        parts = by_length(batch, self.args.micro_batch_size)

        def compute(rows: Tensor, _: float) -> tuple[Tensor, Tensor]:
            logp, values = self._forward(batch.select(rows).to(self.accelerator.device))
            return logp.float().cpu(), logp.cpu() if values is None else values.detach().cpu()

        found = shared_out(parts, self.accelerator, compute)
        log_probs, values = (spread(parts, [one[at] for one in found], *batch.mask.shape) for at in range(2))
        return log_probs, values if self.value is not None else None

    def update(self, batch: Responses, advantages: Tensor, targets: Tensor | None = None) -> dict[str, float]:
        """One epoch of PPO over the mini-batches, in the order of the responses; what there is to log.

        `advantages` [B, T]; `targets` [B, T] are what the value head should say.
        """
        metrics: list[dict[str, float]] = []
        for rows in torch.arange(len(batch)).split(self.args.mini_batch_size):
            metrics.append(self._mini_batch(batch, advantages, targets, rows))
        finite = [one for one in metrics if math.isfinite(one["policy/grad_norm"])]
        told = {name: sum(one[name] for one in finite) / len(finite) for name in metrics[0]} if finite else {}
        return told | {"policy/skipped": float(len(metrics) - len(finite))}

    def _mini_batch(
        self, batch: Responses, advantages: Tensor, targets: Tensor | None, rows: Tensor
    ) -> dict[str, float]:
        args = self.args
        mask = batch.mask[rows]
        weights = torch.zeros(len(batch))
        weights[rows] = loss_weights(mask, args.loss_agg, args.micro_batch_size)
        # The official mean depends on which responses are together; else like lengths go together.
        in_order = args.loss_agg == "micro-batch-mean"
        parts = rows.split(args.micro_batch_size) if in_order else self._alike(batch, rows)

        def compute(chosen: Tensor, weight: float) -> _Part:
            part = batch.select(chosen).to(self.accelerator.device)
            width = part.mask.shape[1]
            wanted, share = (x.to(part.mask.device) for x in (advantages[chosen, :width], weights[chosen]))
            logp, values = self._forward(part)
            loss = ppo_clip_loss(logp, part.log_probs, wanted, part.mask, args.clip, share)
            kl = loss.new_zeros(())
            if args.kl_coef and part.ref_log_probs is not None:
                kl = kl_loss(logp, part.ref_log_probs, part.mask, share)
            self.learner.backward((loss + args.kl_coef * kl) * weight)
            value = loss.new_zeros(())
            if values is not None and targets is not None:
                errors = (values - targets[chosen, :width].to(values)).square() * part.mask
                value = (errors * share[:, None]).sum() / 2
                (value * weight).backward()
            tokens = int(part.mask.sum())
            clipped = clip_fraction(logp.detach(), part.log_probs, wanted, part.mask, args.clip)
            return _Part(loss.item(), kl.item(), value.item(), clipped * tokens, tokens)

        found = shared_out(parts, self.accelerator, compute)
        if self.value is not None:
            self.value.step()
        told = {
            "policy/loss": sum(one.loss for one in found),
            "policy/clip_fraction": sum(one.clipped for one in found)
            / max(sum(one.tokens for one in found), 1),
            "policy/grad_norm": self.learner.step(),
        }
        if args.kl_coef:
            told["policy/kl"] = sum(one.kl for one in found)
        if self.value is not None:
            told["policy/value_loss"] = sum(one.value for one in found)
        return told

    def _alike(self, batch: Responses, rows: Tensor) -> list[Tensor]:
        order = batch.lengths()[rows].argsort(descending=True, stable=True)
        return list(rows[order].split(self.args.micro_batch_size))

    def _forward(self, part: Responses) -> tuple[Tensor, Tensor | None]:
        if self.value is None:
            return self.learner.log_probs(part), None
        with self.value.watching(self.learner.model) as seen:
            logp = self.learner.log_probs(part)
        # A token's value is read where the token is predicted, one place before it.
        start = part.prompt_length - 1
        hidden = seen[-1][:, start : start + part.mask.shape[1]]
        with torch.enable_grad():
            return logp, self.value.head(hidden.detach().float())[..., 0]


class ValueHead:
    """A linear value of the policy's last hidden states, at first 0; they learn nothing from it."""

    def __init__(self, learner: Learner, learning_rate: float) -> None:
        self.accelerator = learner.accelerator
        config = cast(Any, base_model(learner.model)).config.get_text_config()
        self.head = nn.Linear(config.hidden_size, 1).to(self.accelerator.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=learning_rate, weight_decay=0.0)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """The hidden states that go into the model's head, [B, S, d] a forward pass."""
        seen: list[Tensor] = []
        embedding = cast(Any, base_model(model)).get_output_embeddings()
        handle = embedding.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            yield seen
        finally:
            handle.remove()

    def step(self) -> None:
        """Update by the gradients of all processes, unless they are no numbers."""
        for weight in self.head.parameters():
            assert weight.grad is not None
            if self.accelerator.num_processes > 1:
                torch.distributed.all_reduce(weight.grad)
        if all(bool(cast(Tensor, weight.grad).isfinite().all()) for weight in self.head.parameters()):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Head and optimiser."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the head was."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.optimizer.zero_grad(set_to_none=True)
