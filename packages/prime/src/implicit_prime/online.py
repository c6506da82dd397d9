"""The online PRM: it scores the policy's responses token by token, and learns from their outcomes."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from implicit_prime.core import calibration_error, pair_accuracy
from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prime.learner import (
    Learner,
    active_adapter,
    by_length,
    forward_precision,
    micro_batches,
    placed,
    shared_out,
    spread,
)
from implicit_prime.objectives import better_pairs, prm_loss, prm_weights
from implicit_prime.responses import Responses
from implicit_prm import ImplicitPRM
from implicit_prm.backends.hf import without_dropout
from implicit_prm.functional import implicit_rewards
from implicit_prm.reward_metrics import auc

if TYPE_CHECKING:
    from accelerate import Accelerator

    from implicit_prime.config import PrimeConfig

# Below one half by more than chance, over so many steps: the rewards then teach the policy the wrong thing.
_ANTI_CORRELATED = 0.45
_ANTI_CORRELATED_STEPS = 10


@dataclass(frozen=True, slots=True, eq=False)
class PRMStep:
    """What the PRM says of a step's responses.

    process   float32 [B, T], rewards of the tokens
    accuracy  pair accuracy of rewards given before the PRM was trained on the responses; NaN without a pair
    metrics   what there is to log, under "prm/"
    """

    process: Tensor
    accuracy: float
    metrics: dict[str, float]


class _Part(NamedTuple):
    process: Tensor
    loss: float


class OnlinePRM:
    """Scores and trains an `ImplicitPRM` in the order that the settings ask for (section 2.4).

    prm      model, reference and beta; with ref="policy" its reference is not used
    adapter  the model's PEFT adapter that is the PRM, where it shares a model with the policy

    The PRM and its reference are moved to the accelerator's device, or sharded, where they stand.
    """

    def __init__(
        self, prm: ImplicitPRM, args: PrimeConfig, accelerator: Accelerator, adapter: str | None = None
    ) -> None:
        if args.ref == "sft" and prm.ref_model is None:
            raise PrimeError(
                "ref is 'sft', and the PRM has no reference: give ref_model, or set ref='policy'"
            )
        self.prm = prm
        self.args = args
        self.accelerator = accelerator
        self.adapter = adapter
        self.steps = 0
        self.learner: Learner | None = None
        without_dropout(prm.model)
        prm.model = placed(prm.model, accelerator)
        if args.ref == "sft" and isinstance(prm.ref_model, torch.nn.Module):
            prm.ref_model = placed(prm.ref_model.requires_grad_(False), accelerator)
        if args.prm_update != "none":
            self.learner = Learner(
                prm.model,
                accelerator,
                learning_rate=args.prm_learning_rate,
                weight_decay=args.prm_weight_decay,
                max_grad_norm=args.prm_max_grad_norm,
                adapter=adapter,
            )
        self._replay: deque[Responses] = deque(maxlen=args.prm_replay_steps)
        self._accuracies: deque[float] = deque(maxlen=_ANTI_CORRELATED_STEPS)

    def step(self, batch: Responses, others: Responses | None = None) -> PRMStep:
        """Score `batch`, and train on it, before or after as `prm_update` says.

        `others` are responses that the policy does not train on; with prm_train_on="all" the PRM does.
        Raises `PrimeError` for rewards that are not finite.
        """
        args = self.args
        others = others if args.prm_train_on == "all" else None
        with active_adapter(self.prm.model, self.adapter):
            batch = self.with_reference(batch)
            if args.prm_update == "before":
                unseen, metrics = self.update(batch, others)
                process = self.score(batch)
            elif args.prm_update == "none":
                unseen, metrics = self.score(batch), {}
                process = unseen
            else:
                unseen, metrics = self.update(batch, others, fused=args.score_pass == "fused")
                process = unseen
        self.steps += 1
        return self._told(batch, process, unseen, metrics)

    def with_reference(self, batch: Responses) -> Responses:
        """The responses with the reference's log-probs; with ref="policy" those of the policy of then."""
        if batch.ref_log_probs is not None:
            return batch
        if self.args.ref == "policy":
            return replace(batch, ref_log_probs=batch.log_probs)
        parts = by_length(batch, self.args.micro_batch_size)

        def compute(rows: Tensor, _: float) -> Tensor:
            part = batch.select(rows).to(self.accelerator.device)
            with forward_precision(self.accelerator):
                inputs = part.input_ids, part.attention_mask, part.completion_mask
                found = self.prm.ref_log_probs(*inputs)
            assert found is not None
            return found[:, part.prompt_length :].float().cpu()

        found = shared_out(parts, self.accelerator, compute)
        return replace(batch, ref_log_probs=spread(parts, found, *batch.mask.shape))

    @torch.no_grad()
    def score(self, batch: Responses) -> Tensor:
        """Rewards of every token as the PRM is now: float32 [B, T]."""
        batch = self.with_reference(batch)
        parts = by_length(batch, self.args.micro_batch_size)

        def compute(rows: Tensor, _: float) -> Tensor:
            return self._rewards(batch.select(rows)).token_rewards.cpu()

        found = shared_out(parts, self.accelerator, compute)
        return _finite(spread(parts, found, *batch.mask.shape))

    def update(
        self, batch: Responses, others: Responses | None = None, fused: bool = True
    ) -> tuple[Tensor, dict[str, float]]:
        """Train on the responses, and on those of past steps where there is a replay.

        Returns the rewards of the tokens of `batch`, [B, T], and what there is to log. With `fused` the
        rewards of a response are those of its first pass: from before its own update, but after those of
        earlier mini-batches. Without, they are all of the PRM as it was before: the first mini-batch's pass
        gives these anyway, so only the responses of later ones go through the model once more.
        """
        if self.learner is None:
            raise PrimeError("prm_update is 'none': this PRM is frozen")
        new = [self.with_reference(part) for part in (batch, others) if part is not None and len(part)]
        rows = Responses.concat([*new, *self._replay])
        first, *later = mini_batches = list(self._mini_batches(rows, 0))
        process = torch.zeros(rows.mask.shape)
        if not fused:
            process += self._score_some(rows, [group for each in later for group in each], len(batch))
        losses, norms = [], []
        for epoch in range(self.args.prm_epochs):
            for mini_batch in self._mini_batches(rows, epoch) if epoch else mini_batches:
                parts, found, norm = self._train_on(rows, mini_batch)
                if epoch == 0 and (fused or mini_batch is first):
                    process += spread(parts, [part.process for part in found], *process.shape)
                losses.append(sum(part.loss for part in found))
                norms.append(norm)
        if self.args.prm_replay_steps:
            self._replay.append(Responses.concat(new))
        finite = [norm for norm in norms if np.isfinite(norm)]
        metrics = {
            "prm/loss": float(np.mean(losses)),
            "prm/grad_norm": float(np.mean(finite)) if finite else float("nan"),
            "prm/skipped": float(len(norms) - len(finite)),
            "prm/responses": float(len(rows)),
        }
        return _finite(process[: len(batch), : batch.mask.shape[1]]), metrics

    def state_dict(self) -> dict[str, Any]:
        """All but the model and its optimiser: tensors, and what JSON can hold."""
        return {
            "steps": self.steps,
            "accuracies": list(self._accuracies),
            "replay": [asdict(part) for part in self._replay],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the PRM was."""
        self.steps = state["steps"]
        self._accuracies = deque(state["accuracies"], _ANTI_CORRELATED_STEPS)
        self._replay = deque((Responses(**part) for part in state["replay"]), self.args.prm_replay_steps)

    def _score_some(self, rows: Responses, groups: list[Tensor], known: int) -> Tensor:
        """Rewards of the responses of `groups` among the first `known` rows: [rows, T], 0 for all others."""
        chosen = torch.cat([torch.zeros(0, dtype=torch.long), *groups])
        chosen = chosen[chosen < known]
        found = [self.score(rows.select(chosen))] if len(chosen) else []
        return spread([chosen] if found else [], found, *rows.mask.shape)

    def _rewards(self, part: Responses) -> Any:
        part = part.to(self.accelerator.device)
        with forward_precision(self.accelerator):
            inputs = part.input_ids, part.attention_mask, part.completion_mask
            found = self.prm.log_probs(*inputs)[:, part.prompt_length :]
        return implicit_rewards(found, part.ref_log_probs, part.mask, self.prm.beta)

    def _mini_batches(self, rows: Responses, epoch: int) -> Iterator[list[Tensor]]:
        """The groups, some at a time, in a random order that depends on seed, step and epoch."""
        _, inverse = rows.groups.unique(return_inverse=True)
        groups = [(inverse == number).nonzero()[:, 0] for number in range(int(inverse.max()) + 1)]
        order = np.random.default_rng([self.args.seed, self.steps, epoch]).permutation(len(groups))
        waiting: list[Tensor] = []
        for number in order.tolist():
            if waiting and sum(map(len, waiting)) + len(groups[number]) > self.args.mini_batch_size:
                yield waiting
                waiting = []
            waiting.append(groups[number])
        yield waiting

    def _train_on(self, rows: Responses, groups: list[Tensor]) -> tuple[list[Tensor], list[_Part], float]:
        """One optimiser step on whole groups; the micro-batches, what each gave, and the gradient's norm."""
        assert self.learner is not None
        learner, kind = self.learner, self.args.prm_loss
        everything = torch.cat(groups)
        outcomes, names = rows.outcomes[everything], rows.groups[everything]
        weights = torch.zeros(len(rows))
        weights[everything] = prm_weights(outcomes, names, kind, self.args.prm_balanced)
        lengths = rows.lengths()
        groups = sorted(groups, key=lambda group: int(lengths[group].max()), reverse=True)
        # A group whose responses are compared stays together, even where it is more than a micro-batch.
        pieces = [row[None] for row in torch.cat(groups)] if kind == "ce" else groups
        parts = micro_batches(pieces, self.args.micro_batch_size)

        def compute(chosen: Tensor, weight: float) -> _Part:
            part = rows.select(chosen)
            rewards = self._rewards(part)
            labels, names = part.outcomes.to(rewards.outcome), part.groups.to(rewards.outcome.device)
            loss = prm_loss(rewards.outcome, labels, names, weights[chosen].to(labels), kind)
            learner.backward(loss * weight)
            return _Part(rewards.token_rewards.detach().cpu(), float(loss.detach()))

        found = shared_out(parts, self.accelerator, compute)
        if kind in ("dpo", "nca") and not len(better_pairs(outcomes, names)):
            learner.optimizer.zero_grad(set_to_none=True)
            return parts, found, 0.0  # nothing to learn; AdamW would move on by its momentum
        return parts, found, learner.step()

    def _told(self, batch: Responses, process: Tensor, unseen: Tensor, metrics: dict[str, float]) -> PRMStep:
        scores = unseen.sum(1)
        accuracy = pair_accuracy(scores, batch.outcomes, batch.groups)
        if not np.isnan(accuracy):
            self._accuracies.append(accuracy)
        if len(self._accuracies) == _ANTI_CORRELATED_STEPS and max(self._accuracies) < _ANTI_CORRELATED:
            warnings.warn(
                f"the PRM's pair accuracy was below {_ANTI_CORRELATED} for {_ANTI_CORRELATED_STEPS} steps: "
                "its rewards are anti-correlated with the outcomes; try prm_loss='nca' or 'ce_loo', "
                "prm_balanced=true, or process_weight='accuracy', which then takes none of them",
                PrimeWarning,
                stacklevel=3,
            )
            self._accuracies.clear()
        metrics = {
            "prm/accuracy": accuracy,
            "prm/auc": auc(scores.numpy(), batch.outcomes.numpy()),
            "prm/calibration_error": calibration_error(scores, batch.outcomes),
            "prm/outcome_reward": float(scores.mean()),
            "prm/token_reward": float(process.abs().sum() / batch.mask.sum().clamp(min=1)),
            **metrics,
        }
        return PRMStep(process, accuracy, metrics)


def _finite(process: Tensor) -> Tensor:
    if not process.isfinite().all():
        row = int((~process.isfinite()).any(1).nonzero()[0])
        raise PrimeError(
            f"the process rewards of response {row} of the step are not finite: the PRM has diverged (lower "
            "prm_learning_rate), or a model's log-probs are no numbers (load it in float32 or bfloat16)"
        )
    return process
