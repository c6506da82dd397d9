"""The settings of a training run, and their TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from omnirl.checks import check_real, check_whole
from omnirl.errors import OmniRLError
from omnirl.model.config import OmniRLConfig, check_keys
from omnirl.model.layouts import FUSED

_COUNTS = ("updates", "batch_size", "context", "context_start", "threads", "max_bad_updates", "log_every")
_NUMBERS = (
    *("context_ramp", "context_warmup", "lr", "muon_lr", "momentum", "weight_decay", "warmup", "final_lr"),
    *("clip", "checkpoint_minutes"),
)
_WEIGHTS = ("policy_weight", "state_weight", "reward_weight")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. The defaults are the recipe that worked on a CPU (section 6.2).

    What is read: `updates` batches of `batch_size` sequences, `context` steps long; over the first
    `context_ramp` of the updates the length grows from `context_start` (no more than `context`); `data` is
    passed on to `omnirl.data.TaskStream`, or with a `folder` to `omnirl.data.DatasetStream`.

    The loss: `context_warmup` steps until a step counts in full, `policy_weight`, `state_weight` and
    `reward_weight` as in section 2.6 (None means 0.2, 0.4, 0.4 where there is a world model, else 1, 0, 0).
    `segment` steps are read at a time with the gradient of the memory cut between them; None for all at once.

    The optimisers: AdamW with `lr`, and Muon with `muon_lr` for the trunk's matrices (0: AdamW for them too).
    `schedule` "trapezoid" warms up over `warmup` updates, is constant to the half and falls linearly to
    `final_lr` of the peak; "noam" is min(u / warmup, (u / warmup)^-1/2). `clip` bounds the gradient's norm.

    The run: `out` is the folder of checkpoints and metrics; `initial` is a model's folder, whose weights the
    run begins with (its config must be `model`), None for random ones; `threads` work side by side on parts
    of a batch (CPU); `checkpoint_minutes` lie between checkpoints; after `max_bad_updates` in a row with a
    loss or gradient that is not finite the run stops. `precision` "bf16" computes matrix
    products in bfloat16: for GPUs, and CPUs that have its instructions.
    """

    model: OmniRLConfig
    out: str
    updates: int = 1300
    batch_size: int = 40
    context: int = 256
    context_start: int = 64
    context_ramp: float = 0.4
    context_warmup: int = 512
    policy_weight: float | None = None
    state_weight: float | None = None
    reward_weight: float | None = None
    segment: int | None = None
    lr: float = 3e-3
    muon_lr: float = 0.008
    momentum: float = 0.95
    weight_decay: float = 0.01
    schedule: Literal["trapezoid", "noam"] = "trapezoid"
    warmup: int = 50
    final_lr: float = 0.05
    clip: float = 1.0
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_minutes: float = 5.0
    log_every: int = 10
    max_bad_updates: int = 20
    data: Mapping[str, Any] = field(default_factory=dict)
    initial: str | None = None

    def __post_init__(self) -> None:
        check_real(**{key: getattr(self, key) for key in _NUMBERS})
        check_real(**{key: getattr(self, key) for key in _WEIGHTS if getattr(self, key) is not None})
        check_whole(seed=self.seed)
        for key, kind, words in (
            ("out", str, "text"),
            ("initial", str | None, "text"),
            ("device", str, "text"),
            ("data", Mapping, "a table"),
        ):
            if not isinstance(getattr(self, key), kind):
                raise OmniRLError(f"{key} is {getattr(self, key)!r}; it must be {words}")
        for key in _COUNTS:
            _check(key, getattr(self, key), lambda value: isinstance(value, int) and value > 0, "at least 1")
        _check(
            "segment",
            self.segment,
            lambda v: v is None or (isinstance(v, int) and v > 0),
            "at least 1, or none",
        )
        for key in ("context_ramp", "final_lr"):
            _check(key, getattr(self, key), lambda value: 0 <= value <= 1, "between 0 and 1")
        for key in ("lr", "clip", "checkpoint_minutes"):
            _check(key, getattr(self, key), lambda value: value > 0, "above 0")
        for key in ("muon_lr", "weight_decay", "warmup", "context_warmup", "seed"):
            _check(key, getattr(self, key), lambda value: value >= 0, "0 or more")
        if self.schedule not in ("trapezoid", "noam"):
            raise OmniRLError(f"schedule is {self.schedule!r}; it may be 'trapezoid' or 'noam'")
        if self.precision not in ("fp32", "bf16"):
            raise OmniRLError(f"precision is {self.precision!r}; it may be 'fp32' or 'bf16'")
        if self.threads > 1 and self.model.dropout:
            raise OmniRLError("threads share one stream of random numbers: dropout needs threads = 1")
        if self.threads > 1 and self.device != "cpu":
            raise OmniRLError(f"threads are for the CPU; device {self.device!r} needs threads = 1")
        if (self.state_weight or self.reward_weight) and not self.model.has_world_model:
            raise OmniRLError("state_weight and reward_weight need a model with world_model")

    @property
    def loss_weights(self) -> tuple[float, float, float]:
        """λ of the policy, next-state and reward terms."""
        default = (0.2, 0.4, 0.4) if self.model.has_world_model else (1.0, 0.0, 0.0)
        given = (self.policy_weight, self.state_weight, self.reward_weight)
        policy, state, reward = (
            own if value is None else value for own, value in zip(default, given, strict=True)
        )
        return policy, state, reward

    def length(self, update: int) -> int:
        """Steps of context at `update`: linear from `context_start` to `context`, then constant."""
        if update >= self.context_ramp * self.updates:
            return self.context
        start = min(self.context_start, self.context)
        return round(start + update / (self.context_ramp * self.updates) * (self.context - start))

    def rate(self, update: int) -> float:
        """The factor of the learning rates at `update`, counted from 0."""
        if self.schedule == "noam":
            done = (update + 1) / max(self.warmup, 1)
            return float(min(done, done**-0.5))
        rising = min(1.0, (update + 1) / self.warmup) if self.warmup else 1.0
        falling = min(1.0, 2 * (self.updates - update) / self.updates)
        return rising * (self.final_lr + (1 - self.final_lr) * falling)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The config of `values`, `model` a table. Raises `OmniRLError` for unknown keys."""
        check_keys(values, [entry.name for entry in fields(cls)], "the training config")
        for key in ("model", "out"):
            if key not in values:
                raise OmniRLError(f"the training config needs {key!r}")
        model = values["model"]
        if not isinstance(model, OmniRLConfig):
            if not isinstance(model, Mapping):
                raise OmniRLError(f"model is {model!r}; it must be a table, such as [model] in TOML")
            model = OmniRLConfig.from_dict({"layout": FUSED, **model})
        return cls(**{**values, "model": model})

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Read a TOML file: the keys of this class, with tables [model] and [data]."""
        try:
            values = tomllib.loads(Path(path).read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise OmniRLError(f"{path} is no training config: {error}") from error
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what is None is left out."""
        values = {**asdict(self), "model": self.model.to_dict(), "data": dict(self.data)}
        return {
            key: {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
            for key, value in values.items()
            if value is not None
        }

    def to_toml(self) -> str:
        """The TOML that `from_toml` reads."""
        values = self.to_dict()
        tables = {key: values.pop(key) for key in ("model", "data")}
        lines = _lines(values)
        for name, table in tables.items():
            lines += ["", f"[{name}]", *_lines(table)]
        return "\n".join(lines) + "\n"


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in values.items()]  # of scalars and lists: TOML too


def _check(key: str, value: Any, holds: Any, allowed: str) -> None:
    if isinstance(value, bool) or not holds(value):
        raise OmniRLError(f"{key} is {value!r}; it must be {allowed}")
