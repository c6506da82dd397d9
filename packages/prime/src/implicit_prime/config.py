"""All settings of a run, with the paper's values as defaults (section 2.3)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from implicit_prime.errors import PrimeError

PRMLoss = Literal["ce", "ce_loo", "dpo", "nca"]
PRMUpdate = Literal["after", "before", "none"]
ScorePass = Literal["separate", "fused"]
PRMTrainOn = Literal["filtered", "all"]
Ref = Literal["sft", "policy"]
Advantage = Literal["rloo", "grpo", "reinforce", "ppo", "implicit_value"]
ProcessBaseline = Literal["paper", "official"]
ProcessNorm = Literal["none", "batch_max", "rms"]
LossAgg = Literal["token-mean", "micro-batch-mean"]
RolloutKind = Literal["hf", "vllm_colocate", "vllm_server"]
ReportTo = Literal["none", "tensorboard"]

# The annotations of `PrimeConfig` say the same to a reader.
_CHOICES: dict[str, Any] = {
    "prm_loss": PRMLoss,
    "prm_update": PRMUpdate,
    "score_pass": ScorePass,
    "prm_train_on": PRMTrainOn,
    "ref": Ref,
    "advantage": Advantage,
    "process_baseline": ProcessBaseline,
    "process_norm": ProcessNorm,
    "loss_agg": LossAgg,
    "rollout": RolloutKind,
    "report_to": ReportTo,
}
_SWITCHES = ("recompute_ref", "prm_balanced", "whiten", "filter_truncated", "use_cpu")
_COUNTS = (  # whole numbers of at least 1
    "num_train_epochs",
    "prompts_per_step",
    "prm_epochs",
    "max_refill_rounds",
    "mini_batch_size",
    "micro_batch_size",
    "max_prompt_length",
    "max_completion_length",
    "rollout_batch_size",
    "logging_steps",
    "save_steps",
)
_COUNTS_OR_NONE = ("max_steps", "eval_steps")
_POSITIVE = (
    "beta",
    "learning_rate",
    "prm_learning_rate",
    "value_learning_rate",
    "max_grad_norm",
    "prm_max_grad_norm",
    "temperature",
)
_NOT_NEGATIVE = ("kl_coef", "weight_decay", "prm_weight_decay")
_DISCOUNTS = ("process_gamma", "outcome_gamma", "gae_lambda")


@dataclass(frozen=True, kw_only=True)
class PrimeConfig:
    """The settings of a `PrimeTrainer`; every ablation of the paper is one of them.

    output_dir              where checkpoints, logs and the lock file go
    max_steps               rollout steps; None: `num_train_epochs` passes over the prompts
    prompts_per_step, num_generations
                            prompts of a step that pass the filter, and responses to each (256 x 4)

    the process reward model
    beta                    r = beta log(prm / ref), per token
    prm_loss                "ce" (the paper's), "ce_loo" (scores less the mean of the others'), "dpo", "nca"
    prm_balanced            right and wrong responses weigh the same in "ce" and "ce_loo"
    prm_update              "after" scoring (single forward), "before" it (double forward), "none": frozen
    score_pass              "separate": scores are the PRM's before its update, as in Algorithm 1; "fused":
                            scores come out of the update's own pass, those of later mini-batches from a PRM
                            that has moved
    prm_train_on            "filtered": responses the policy trains on; "all": every response drawn
    prm_replay_steps        the PRM also trains on the responses of so many past steps
    prm_epochs              passes of the PRM over a step's responses
    ref                     "sft": a frozen copy of the initial model; "policy": the rollout policy itself
    recompute_ref           needed for ref="policy" at a temperature other than 1

    advantages
    advantage               "rloo", "grpo", "reinforce", "ppo" (GAE with a value head), "implicit_value"
    process_baseline        baseline of process rewards in "rloo", as in "paper" or the "official" code
    process_norm            "none", "batch_max" (the official code's) or "rms" of process rewards; it has no
                            effect in "grpo", which divides them by their own spread
    process_weight          factor of process rewards, in "grpo" of the standardised ones, or "accuracy":
                            max(0, 2 acc - 1) of the PRM
    process_gamma, outcome_gamma, gae_lambda
                            discounts; "ppo" has process_gamma alone for both, "implicit_value" has none
    whiten                  whiten advantages over all tokens of a step

    prompts
    accuracy_range          prompts with a mean outcome in it are kept, bounds included; None: all
    filter_truncated        drop prompts with a response that was cut off
    max_refill_rounds       rounds of rollouts to find the prompts of a step in

    optimisation
    learning_rate, prm_learning_rate, value_learning_rate
                            constant, AdamW (0.9, 0.999)
    weight_decay, prm_weight_decay, max_grad_norm, prm_max_grad_norm
                            of the policy and of the PRM
    mini_batch_size         responses of a gradient step; a step of fewer responses is one mini-batch
    micro_batch_size        responses that a process holds in memory at one time
    loss_agg                "token-mean" over a mini-batch, or the official "micro-batch-mean"
    clip, kl_coef           PPO's clip range, and the weight of the KL term against the reference

    rollouts
    temperature             of rollouts
    max_prompt_length, max_completion_length
                            in tokens
    rollout                 "hf", "vllm_colocate" or "vllm_server"
    rollout_batch_size      responses that "hf" writes at once
    vllm_gpu_memory_utilization
                            share of a GPU's memory that "vllm_colocate" takes
    vllm_server_url         address of "vllm_server"
    vllm_sync_folder        folder that trainer and server share, through which weights go; None: NCCL, by TRL

    save_steps, eval_steps, logging_steps, seed, use_cpu, report_to
                            as in `transformers.TrainingArguments`; eval_steps None: no evaluation

    Raises `PrimeError` for a value that cannot be, naming the key, the value and what is allowed.
    """

    output_dir: str
    max_steps: int | None = None
    num_train_epochs: int = 1
    prompts_per_step: int = 256
    num_generations: int = 4

    beta: float = 0.05
    prm_loss: PRMLoss = "ce"
    prm_balanced: bool = False
    prm_update: PRMUpdate = "after"
    score_pass: ScorePass = "separate"
    prm_train_on: PRMTrainOn = "filtered"
    prm_replay_steps: int = 0
    prm_epochs: int = 1
    ref: Ref = "sft"
    recompute_ref: bool = False

    advantage: Advantage = "rloo"
    process_baseline: ProcessBaseline = "paper"
    process_norm: ProcessNorm = "none"
    process_weight: float | Literal["accuracy"] = 1.0
    process_gamma: float = 1.0
    outcome_gamma: float = 1.0
    gae_lambda: float = 1.0
    whiten: bool = True

    accuracy_range: tuple[float, float] | None = (0.2, 0.8)
    filter_truncated: bool = False
    max_refill_rounds: int = 16

    learning_rate: float = 5e-7
    prm_learning_rate: float = 1e-6
    value_learning_rate: float = 1e-5
    weight_decay: float = 1e-2
    prm_weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    prm_max_grad_norm: float = 10.0
    mini_batch_size: int = 256
    micro_batch_size: int = 8
    loss_agg: LossAgg = "token-mean"
    clip: float = 0.2
    kl_coef: float = 0.0

    temperature: float = 1.0
    max_prompt_length: int = 1024
    max_completion_length: int = 3072
    rollout: RolloutKind = "hf"
    rollout_batch_size: int = 64
    vllm_gpu_memory_utilization: float = 0.3
    vllm_server_url: str = "http://localhost:8000/v1"
    vllm_sync_folder: str | None = None

    save_steps: int = 50
    eval_steps: int | None = None
    logging_steps: int = 1
    seed: int = 0
    use_cpu: bool = False
    report_to: ReportTo = "none"

    def __post_init__(self) -> None:
        bounds: Any = self.accuracy_range
        if isinstance(bounds, list):  # as files of settings have it
            object.__setattr__(self, "accuracy_range", tuple(bounds))
        self._check_values()
        self._check_combinations()

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> PrimeConfig:
        """The settings of a mapping, such as a table of a TOML file.

        TOML has no null: "none" stands for it where None is allowed.
        Raises `PrimeError` for keys that do not exist, naming the nearest one, and as `PrimeConfig` does.
        """
        known = {field.name: field for field in fields(cls)}
        for key in settings:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise PrimeError(f"PrimeConfig has no setting {key!r}{hint}")
        if "output_dir" not in settings:
            raise PrimeError("output_dir is missing: the folder for checkpoints and logs")
        values: dict[str, Any] = {
            key: None if value == "none" and "None" in str(known[key].type) else value
            for key, value in settings.items()
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All settings, as JSON and TOML can hold them; `from_dict` gives the same settings again."""
        found = {key: "none" if value is None else value for key, value in asdict(self).items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}

    @property
    def responses_per_step(self) -> int:
        """B = prompts x responses of a full step."""
        return self.prompts_per_step * self.num_generations

    def check_world_size(self, processes: int) -> None:
        """Raise `PrimeError` if prompts and mini-batches cannot be shared out to so many processes evenly."""
        for name, count in (
            ("prompts_per_step", self.prompts_per_step),
            ("mini_batch_size", min(self.mini_batch_size, self.responses_per_step)),
        ):
            if count % processes:
                raise PrimeError(
                    f"{name} is {count}; it must be a multiple of the number of processes, {processes}"
                )

    def _check_values(self) -> None:
        for name, choice in _CHOICES.items():
            self._require(name, getattr(self, name) in get_args(choice), f"one of {_quoted(choice)}")
        for name in _SWITCHES:
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        for name in _COUNTS:
            self._require(name, _whole(getattr(self, name), 1), "a whole number of at least 1")
        for name in _COUNTS_OR_NONE:
            value = getattr(self, name)
            self._require(name, value is None or _whole(value, 1), "a whole number of at least 1, or none")
        for name in ("prm_replay_steps", "seed"):
            self._require(name, _whole(getattr(self, name), 0), "a whole number of at least 0")
        for name in _POSITIVE:
            self._require(name, _between(getattr(self, name), 0, math.inf, open_ends=True), "above 0")
        for name in _NOT_NEGATIVE:
            self._require(name, _between(getattr(self, name), 0, math.inf), "a number of at least 0")
        for name in _DISCOUNTS:
            self._require(name, _between(getattr(self, name), 0, 1), "a number from 0 to 1")
        self._require("clip", _between(self.clip, 0, 1, open_ends=True), "between 0 and 1")
        share = self.vllm_gpu_memory_utilization
        self._require("vllm_gpu_memory_utilization", _between(share, 0, 1) and share > 0, "in (0, 1]")
        self._require(
            "process_weight",
            self.process_weight == "accuracy" or _between(self.process_weight, 0, math.inf),
            "a number of at least 0, or 'accuracy'",
        )
        self._require(
            "num_generations",
            _whole(self.num_generations, 2),
            "at least 2: baselines and the filter compare the responses of a prompt",
        )
        bounds = self.accuracy_range
        self._require(
            "accuracy_range",
            bounds is None or (isinstance(bounds, tuple) and len(bounds) == 2 and _ordered(*bounds)),
            "(low, high) with 0 <= low <= high <= 1, or none",
        )
        for name in ("output_dir", "vllm_server_url"):
            value = getattr(self, name)
            self._require(name, isinstance(value, str) and value != "", "text, and not empty")

    def _check_combinations(self) -> None:
        size, batch = self.responses_per_step, self.mini_batch_size
        if size > batch and size % batch:
            raise PrimeError(
                f"mini_batch_size is {batch}; it must divide prompts_per_step x num_generations = {size}, "
                "so that all gradient steps see as many responses"
            )
        if self.ref == "policy" and self.temperature != 1 and not self.recompute_ref:
            raise PrimeError(
                f"temperature is {self.temperature} and ref is 'policy': rollouts are drawn from another "
                "distribution than the reference's log-probs are of; set temperature=1, or recompute_ref=true"
            )
        if self.score_pass == "fused" and self.prm_update != "after":
            raise PrimeError(
                f"score_pass is 'fused' and prm_update is {self.prm_update!r}: scores come out of the "
                "update's own pass only with prm_update='after'; set score_pass='separate'"
            )
        if self.prm_update == "none" and (self.prm_replay_steps or self.prm_epochs > 1):
            raise PrimeError(
                f"prm_replay_steps is {self.prm_replay_steps} and prm_epochs {self.prm_epochs}, but "
                "prm_update='none' trains no PRM; leave them at 0 and 1"
            )
        if self.prm_update == "none":
            self._refuse("prm_update='none' trains no PRM", "prm_train_on", "prm_balanced", "prm_loss")
        if self.advantage == "ppo":
            self._refuse("advantage='ppo' discounts outcomes too by process_gamma", "outcome_gamma")
        if self.advantage == "implicit_value":
            self._refuse("advantage='implicit_value' discounts nothing", "process_gamma", "outcome_gamma")
        if self.prm_balanced and self.prm_loss not in ("ce", "ce_loo"):
            raise PrimeError(f"prm_balanced is for prm_loss 'ce' and 'ce_loo'; {self.prm_loss!r} is of pairs")

    def _refuse(self, why: str, *names: str) -> None:
        """Raise `PrimeError` for the settings of these names that would be without effect."""
        usual = {field.name: field.default for field in fields(self)}
        for name in names:
            if getattr(self, name) != usual[name]:
                raise PrimeError(f"{name} is {getattr(self, name)!r}, but {why}; leave it at {usual[name]!r}")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise PrimeError(f"{name} is {getattr(self, name)!r}; it must be {allowed}")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _between(value: object, low: float, high: float, open_ends: bool = False) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return low < value < high if open_ends else low <= value <= high


def _ordered(low: object, high: object) -> bool:
    return _between(low, 0, 1) and _between(high, 0, 1) and low <= high  # type: ignore[operator]


def _quoted(choice: Any) -> str:
    return ", ".join(map(repr, get_args(choice)))
