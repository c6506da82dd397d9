"""PRIME inside TRL: a `GRPOTrainer` whose tokens have advantages of process and outcome rewards (section 3).

Rollouts, rewards and the policy's optimisation are TRL's; filter, PRM and advantages are those of
`PrimeTrainer`. TRL draws a fixed number of prompts a step, so that what the filter drops is not made up for.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from torch import Tensor, nn

from implicit_prime import checkpoint, core
from implicit_prime.config import PrimeConfig
from implicit_prime.credit import process_weight, token_advantages
from implicit_prime.errors import MissingExtraError, PrimeError, PrimeWarning
from implicit_prime.learner import forward_precision, spread
from implicit_prime.models import prepare_models
from implicit_prime.online import OnlinePRM
from implicit_prime.responses import Responses
from implicit_prime.verifiers.base import Verifier, verify
from implicit_prm import ImplicitPRM
from implicit_prm.backends.hf import evaluating
from implicit_prm.logprobs import causal_log_probs

try:
    from trl.trainer.grpo_trainer import GRPOTrainer
except ImportError as error:
    raise MissingExtraError(f"TRL cannot be imported ({error}): pip install 'implicit-prime[trl]'") from error

if TYPE_CHECKING:
    from trl.trainer.grpo_config import GRPOConfig

# The settings of `PrimeConfig` that TRL has nothing to say about.
_SETTINGS = {
    "beta", "prm_loss", "prm_balanced", "prm_update", "score_pass", "prm_train_on", "prm_replay_steps",
    "prm_epochs", "ref", "recompute_ref", "advantage", "process_baseline", "process_norm", "process_weight",
    "process_gamma", "outcome_gamma", "whiten", "accuracy_range", "filter_truncated", "prm_learning_rate",
    "prm_weight_decay", "prm_max_grad_norm", "mini_batch_size", "micro_batch_size",
}  # fmt: skip
_LOSSES = ("dapo", "bnpo")
_PRM = "prm"


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """The responses of all processes, and which of them the policy, or else the PRM alone, may learn from."""

    responses: Responses
    kept: Tensor
    others: Tensor


class PrimeGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` with the advantages and the online PRM of PRIME.

    model, reward_funcs, args, and all others
                as of `GRPOTrainer`; the weighted sum of the rewards is the outcome, and must lie in [0, 1]:
                see `verifier_reward`
    prm         as of `PrimeTrainer`: a model, its name or an `ImplicitPRM`; None begins as the policy
    prime       settings of `PrimeConfig`, by name, of PRM, advantages and filter; mini_batch_size and
                micro_batch_size are the PRM's, the latter per_device_train_batch_size unless given

    Responses outside the filter are masked out of the loss; the share of prompts inside is logged as
    "prime/pass_rate". In evaluations nothing is trained and advantages are TRL's. Checkpoints have the PRM
    and its optimiser in their folder "prm", from which a run goes on; not yet bit for bit as if it had not
    been interrupted: the policy's weights were seen to differ in the fourth decimal.

    Raises `PrimeError` for settings that are not PRIME's loss, and for those that TRL decides.
    """

    # In TRL's declarations each may be of many types, None among them.
    model: Any
    _tokenizer: Any
    _logs: Any

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: GRPOConfig,
        *,
        prm: str | nn.Module | ImplicitPRM | None = None,
        prime: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.prime = prime_config(args, prime or {})
        adapted = others.get("peft_config") is not None or hasattr(model, "peft_config")
        if prm is None and not adapted and self.prime.process_weight and self.prime.prm_update != "none":
            # TRL gives the model a forward that is bound to it: a later copy would compute with the policy.
            prm = model if isinstance(model, str) else copy.deepcopy(model)
        super().__init__(model, reward_funcs, args, **others)
        models = prepare_models(self.model, prm, self.prime, self._tokenizer)
        self.prm = models.prm
        self.online = (
            None
            if models.prm is None
            else OnlinePRM(models.prm, self.prime, self.accelerator, models.prm_adapter)
        )
        self._outcomes = torch.empty(0)

    def save_prm(self, folder: str | Path) -> None:
        """Save the PRM as `from_pretrained` reads it; nothing where it is not trained. All processes call.

        Raises `PrimeError`, on the process that writes, where it cannot.
        """
        if self.online is None or self.online.learner is None:
            return
        put = checkpoint.MainWriter(self.accelerator)
        checkpoint.save_weights(self.online.learner, Path(folder), put)
        put(partial(self._tokenizer.save_pretrained, folder))
        if put.failure:
            raise PrimeError(f"the PRM could not be written to {folder}: {put.failure}")

    # ---- what TRL calls

    def _calculate_rewards(self, *args: Any) -> Tensor:
        found: Tensor = super()._calculate_rewards(*args)
        weighted = (found * self.reward_weights.to(found)).nansum(1)
        self._outcomes = weighted.masked_fill(found.isnan().all(1), float("nan")).float().cpu()
        return found

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self.model.training
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not training:
            return out
        drawn = self._drawn(out)
        advantages = self._advantages(drawn)
        count, width = out["completion_ids"].shape
        first = self.accelerator.process_index * count
        mine = slice(first, first + count)
        tokens = drawn.responses.mask[drawn.kept].sum()
        out["advantages"] = advantages[mine, :width].to(out["completion_ids"].device)
        out["completion_mask"] = out["completion_mask"] * drawn.kept[mine, None].to(out["completion_mask"])
        out["num_items_in_batch"] = tokens.to(out["num_items_in_batch"])
        # TRL's table of completions has one number a response; this takes the place of TRL's own.
        lengths = drawn.responses.mask.sum(1).clamp(min=1)
        self._logs["advantages"].extend((advantages.sum(1) / lengths).tolist())
        return out

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.online is None or self.online.learner is None:
            return
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}" / _PRM
        self.save_prm(folder)
        kept = {"optimizer": checkpoint.optimizer_state(self.online.learner)}
        if self.accelerator.is_main_process:
            torch.save(kept | {"online": self.online.state_dict()}, folder / "training.pt")

    def _load_optimizer_and_scheduler(self, source: str | None) -> None:
        super()._load_optimizer_and_scheduler(source)
        if source is None or self.online is None or self.online.learner is None:
            return
        folder = Path(source) / _PRM
        if not (folder / "training.pt").is_file():
            raise PrimeError(f"{source} has no PRM, or not all of one: resume from an earlier checkpoint")
        checkpoint.load_weights(self.online.learner, folder)
        kept = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
        checkpoint.load_optimizer_state(self.online.learner, kept["optimizer"])
        self.online.load_state_dict(kept["online"])

    # ---- PRIME

    def _drawn(self, out: Mapping[str, Any]) -> _Drawn:
        """Gather the responses: groups may straddle processes, and baselines and norms are of all of them."""
        part = self._responses(out)
        every = Responses.concat(gather_object([part]))
        size = self.prime.num_generations
        outcomes = self._checked_outcomes().masked_fill(~every.mask.any(1), float("nan"))
        known = ~outcomes.isnan()
        low, high = self.prime.accuracy_range or (0.0, 1.0)
        inside = core.accuracy_filter(outcomes.view(-1, size), low, high)
        if self.prime.filter_truncated:
            inside &= ~self._truncated(every).view(-1, size).any(1)
        self._metrics["train"]["prime/pass_rate"].append(float(inside.float().mean()))
        groups = torch.arange(len(every)) // size
        chosen = inside[groups]
        return _Drawn(replace(every, outcomes=outcomes, groups=groups), known & chosen, known & ~chosen)

    def _responses(self, out: Mapping[str, Any]) -> Responses:
        """This process's responses, with the policy's log-probs where they are the PRM's reference."""
        input_ids = torch.cat([out["prompt_ids"], out["completion_ids"]], 1)
        attention_mask = torch.cat([out["prompt_mask"], out["completion_mask"]], 1).bool()
        mask = (out["completion_mask"] * out.get("tool_mask", 1)).bool()
        log_probs = torch.zeros(mask.shape)
        if self.online is not None and self.prime.ref == "policy":
            log_probs = self._policy_log_probs(input_ids, attention_mask, mask)
        return Responses(
            input_ids=input_ids.cpu(),
            attention_mask=attention_mask.cpu(),
            mask=mask.cpu(),
            outcomes=torch.zeros(len(mask)),
            groups=torch.zeros(len(mask), dtype=torch.long),
            log_probs=log_probs,
        )

    @torch.no_grad()
    def _policy_log_probs(self, input_ids: Tensor, attention_mask: Tensor, mask: Tensor) -> Tensor:
        # TRL's own log-probs are those at its sampling temperature, and with its dropout.
        width = mask.shape[1]
        wanted = F.pad(mask, (input_ids.shape[1] - width, 0))
        found = []
        with evaluating(self.model), forward_precision(self.accelerator):
            for rows in torch.arange(len(mask), device=mask.device).split(self.prime.micro_batch_size):
                inputs = input_ids[rows], attention_mask[rows]
                found.append(causal_log_probs(self.model, *inputs, completion_mask=wanted[rows])[:, -width:])
        return torch.cat(found).float().cpu()

    def _checked_outcomes(self) -> Tensor:
        outside = (self._outcomes < 0) | (self._outcomes > 1)
        if outside.any():
            raise PrimeError(
                f"a response has the outcome {float(self._outcomes[outside][0])}: the weighted sum of the "
                "rewards must lie in [0, 1], as the PRM learns from it; change reward_funcs, or GRPOConfig's "
                "reward_weights"
            )
        return self._outcomes

    def _truncated(self, every: Responses) -> Tensor:
        """Which responses do not end by themselves; those that TRL masks out as truncated have no token."""
        places = torch.arange(every.input_ids.shape[1])
        last = torch.where(every.attention_mask, places, 0).amax(1, keepdim=True)
        ended = torch.isin(every.input_ids.gather(1, last)[:, 0], torch.tensor(self.eos_token_ids))
        return ~(ended & every.mask.any(1))

    def _advantages(self, drawn: _Drawn) -> Tensor:
        """Train the PRM, and return the advantages of all responses, 0 for those not kept: [B, T]."""
        prime = self.prime
        rows = drawn.kept.nonzero()[:, 0]
        if not len(rows):
            warnings.warn(
                f"no prompt of step {self.state.global_step + 1} has an accuracy in accuracy_range="
                f"{prime.accuracy_range}: nothing is learned from it; draw more prompts a step "
                "(generation_batch_size), or easier or harder ones",
                PrimeWarning,
                stacklevel=2,
            )
            return torch.zeros(drawn.responses.mask.shape)
        batch = drawn.responses.select(rows)
        process, weight = None, 1.0
        if self.online is not None:
            found = self.online.step(batch, drawn.responses.select(drawn.others.nonzero()[:, 0]))
            weight = process_weight(prime, found.accuracy)
            process = core.normalize_process(found.process, batch.mask, prime.process_norm)
            for name, value in {**found.metrics, "prm/weight": weight}.items():
                self._metrics["train"][name].append(value)
        advantages = token_advantages(prime, batch, process, weight)
        advantages = core.whiten(advantages, batch.mask) if prime.whiten else advantages
        return spread([rows], [advantages], *drawn.responses.mask.shape)


def prime_config(args: GRPOConfig, settings: Mapping[str, Any]) -> PrimeConfig:
    """PRIME's settings, with what TRL decides as `args` say.

    Raises `PrimeError` as `PrimeConfig` does, for settings that are not PRIME's in TRL, and for losses that
    cannot have an advantage of each token.
    """
    known = {field.name for field in fields(PrimeConfig)}
    for name in settings:
        if name in known - _SETTINGS:
            raise PrimeError(
                f"{name} has no place in `prime`: rollouts and the policy's optimisation are TRL's, and "
                "GRPOConfig has their settings"
            )
    if settings.get("advantage") == "ppo":
        raise PrimeError("advantage is 'ppo', which needs a value head, and TRL's policy has none")
    if args.loss_type not in _LOSSES:
        raise PrimeError(
            f"loss_type is {args.loss_type!r}; PRIME's loss is a mean over tokens: 'dapo' or 'bnpo'"
        )
    if args.importance_sampling_level != "token":
        raise PrimeError(
            f"importance_sampling_level is {args.importance_sampling_level!r}; PRIME's ratios are of tokens: "
            "'token'"
        )
    size = args.num_generations
    # `GRPOConfig` has given both a value.
    assert size is not None
    assert args.generation_batch_size is not None
    decided = {
        "output_dir": args.output_dir,
        "num_generations": size,
        "prompts_per_step": args.generation_batch_size // size,
        "micro_batch_size": args.per_device_train_batch_size,
        "temperature": args.temperature,
        "seed": args.seed,
    }
    return PrimeConfig.from_dict(decided | dict(settings))


def verifier_reward(verifier: Verifier, column: str = "answer") -> Callable[..., list[float | None]]:
    """A reward function for TRL that asks a verifier, with the data's `column` as references.

    Of messages the last one's content is judged. Where the verifier fails the reward is None, and nothing is
    learned from the response. Raises `PrimeError` for data without the column.
    """

    def verified(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        if column not in columns:
            raise PrimeError(f"the data has no column {column!r} for the verifier to compare responses with")
        texts = [each if isinstance(each, str) else str(each[-1]["content"]) for each in completions]
        results = verify(verifier, texts, columns[column])
        return [None if result.status == "error" else result.score for result in results]

    return verified
