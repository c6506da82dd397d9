"""The settings of the model. No torch here, so that they can be read and checked without it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omnirl.checks import check_real
from omnirl.errors import OmniRLError
from omnirl.model.layouts import FUSED, parse_layout

NUM_TAGS = 8
NUM_PROMPTS = 4  # the reference levels opt0..opt3 of the v1 data; the current data has 3 everywhere
CPU_MIXERS = ("attention", "gated_deltanet")
GPU_MIXERS = ("rwkv7", "gsa", "gla", "mamba2")
MIXERS = CPU_MIXERS + GPU_MIXERS


@dataclass(frozen=True)
class OmniRLConfig:
    """The shape of an `OmniRL` model.

    `num_states` and `num_actions` are the most that a task may have. `layout` is "star" (the paper's, four
    tokens a step), "fused" (one token a step, for CPUs) or letters of the official code such as "podtaw": o,
    p, t, a, r are tokens, d and w mark the token before them that feeds the policy and the world model.
    `mixer` is what mixes over time: "attention" and "gated_deltanet" run anywhere, "rwkv7", "gsa", "gla" and
    "mamba2" need a GPU and flash-linear-attention. `world_model` adds the heads that predict the next state
    and the reward; None means yes, where the layout has room for them. `window` is the number of steps that
    attention looks back, None for all of them. Attention has rotary positions in every layout but "fused",
    where a tabular learner needs counts, not order. `state_dropout` is the probability, in training, that a
    state's id is hidden from the model. `final_norm` puts a norm after the trunk, beside the one that each
    head begins with, and `attention_bias` a bias on attention's output; the official code has both.

    Raises `OmniRLError` naming the key, the value and what is allowed.
    """

    num_states: int
    num_actions: int
    hidden_size: int = 64
    num_layers: int = 4
    num_heads: int = 4
    layout: str = "star"
    mixer: str = "attention"
    intermediate_size: int | None = None
    dropout: float = 0.0
    world_model: bool | None = None
    state_dropout: float = 0.15
    window: int | None = None
    attention_bias: bool = False
    final_norm: bool = False

    def __post_init__(self) -> None:
        for key in ("num_states", "num_actions", "hidden_size", "num_layers", "num_heads"):
            _check_count(key, getattr(self, key))
        for key in ("intermediate_size", "window"):
            if getattr(self, key) is not None:
                _check_count(key, getattr(self, key))
        for key in ("dropout", "state_dropout"):
            check_real(**{key: getattr(self, key)})
            if not 0 <= getattr(self, key) < 1:
                raise OmniRLError(f"{key} is {getattr(self, key)}; it is a probability below 1")
        if self.mixer not in MIXERS:
            raise OmniRLError(f"mixer is {self.mixer!r}; it may be {', '.join(MIXERS)}")
        layout = parse_layout(self.layout)
        if self.hidden_size % self.num_heads or (
            self.mixer == "attention" and self.layout != FUSED and self.hidden_size // self.num_heads % 2
        ):
            raise OmniRLError(
                f"hidden_size {self.hidden_size} does not go into num_heads {self.num_heads} heads of one "
                "size (an even one where there are rotary positions)"
            )
        if self.window is not None and self.mixer != "attention":
            raise OmniRLError(f"window is for mixer 'attention' only; {self.mixer!r} carries a state instead")
        if self.world_model and layout.world_slot is None:
            raise OmniRLError(
                f"world_model is true, but layout {self.layout!r} has no token that has seen the action and "
                "not the outcome; use 'star'"
            )

    @property
    def has_world_model(self) -> bool:
        """Whether the model predicts next states and rewards."""
        return self.world_model is not False and parse_layout(self.layout).world_slot is not None

    @property
    def feed_forward_size(self) -> int:
        """`intermediate_size`, by default twice the hidden size."""
        return self.intermediate_size or 2 * self.hidden_size

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and TOML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OmniRLConfig:
        """The config that `to_dict` wrote.

        Raises `OmniRLError` for unknown keys, with the nearest one, and for those without a default that are
        missing.
        """
        if not isinstance(values, Mapping):
            raise OmniRLError(f"the model's config is {values!r}; it must be a table of keys and values")
        check_keys(values, [field.name for field in fields(cls)], "the model's config")
        for field in fields(cls):
            if field.default is MISSING and field.name not in values:
                raise OmniRLError(f"the model's config needs {field.name!r}")
        return cls(**values)


def read_model_config(folder: Path) -> OmniRLConfig:
    """The config of a model's `folder`. Raises `OmniRLError` for a config.json that is damaged or none."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no text at all
        raise OmniRLError(f"{path} is damaged: {error}") from error
    try:
        return OmniRLConfig.from_dict(values)
    except OmniRLError as error:
        raise OmniRLError(f"{path}: {error}") from error


def check_keys(values: Mapping[str, Any], known: list[str], where: str) -> None:
    """Raise `OmniRLError` for a key of `values` that is not in `known`; the message has the nearest one."""
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise OmniRLError(f"{where} has no key {key!r}{hint}")


def _check_count(key: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OmniRLError(f"{key} is {value!r}; it is a whole number of at least 1")
