"""Which matrices become low-rank, with which rank, and how they start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError, field_validator

from lpa.errors import LPAError, RankError

ATTENTION_ROLES = ("q", "k", "v", "o")
ROLES = (*ATTENTION_ROLES, "ffn")

Init: TypeAlias = Literal["torch", "hf", "matched", "spectral"]
Rank: TypeAlias = StrictInt | StrictFloat


class LPAConfig(BaseModel):
    """Low-dimensional projected attention: `y = B (A x)` in place of `y = W x`.

    A rank is a number of dimensions, or a fraction in (0, 1] of min(n_in, n_out), rounded.
    `targets` are roles ("q", "k", "v", "o"; for the paper's ablations "ffn" and "all") or regular expressions
    searched in full module names. `layers` restricts the roles to these layers. `rank_pattern` maps regular
    expressions to ranks that apply instead of `rank`; the first one found in the module's full name counts
    (in a fused matrix the name of a part follows: `transformer.h.0.attn.c_attn.q`).

    `init`: "torch" is what the official code does, PyTorch's default for both factors, which starts the
    product at 1/sqrt(3) of a default dense layer's scale; "matched" starts it at the dense layer's own scale;
    "spectral" at the truncated SVD of the dense start; "hf" is N(0, initializer_range^2) for both factors, as
    `from_config` alone would do, which starts the product several times too small.

    `bottleneck="silu"` puts SiLU between A and B (the CoLA method, not LPA). `share_down` gives q, k and v of
    a layer one A (another method too). `fused` computes the A's of q, k and v in one product: same numbers up
    to rounding, less memory traffic. `allow_expand` permits ranks at which the product has more parameters
    than the dense matrix. `lm_head_bias` says that the head has a bias, as in the official setting 2.

    Raises `RankError` or `LPAError` naming the key, the value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: Rank
    targets: tuple[str, ...] = Field(ATTENTION_ROLES, min_length=1)
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    rank_pattern: dict[str, Rank] | None = None
    init: Init = "torch"
    bottleneck: Literal["silu"] | None = None
    share_down: bool = False
    fused: bool = True
    allow_expand: bool = False
    lm_head_bias: bool = False

    def __init__(self, rank: int | float | None = None, **settings: Any) -> None:
        if rank is not None:
            settings["rank"] = rank
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise _readable(error) from error

    @field_validator("rank")
    @classmethod
    def _possible_rank(cls, rank: Rank) -> Rank:
        check_rank(rank)
        return rank

    @field_validator("rank_pattern")
    @classmethod
    def _possible_pattern(cls, patterns: dict[str, Rank] | None) -> dict[str, Rank] | None:
        for pattern, rank in (patterns or {}).items():
            check_rank(rank, f"rank_pattern[{pattern!r}]")
            _check_expression("rank_pattern", pattern)
        return patterns

    @field_validator("targets")
    @classmethod
    def _possible_targets(cls, targets: tuple[str, ...]) -> tuple[str, ...]:
        for target in targets:
            if target not in (*ROLES, "all"):
                _check_expression("targets", target)
        return targets

    @property
    def roles(self) -> frozenset[str]:
        """The roles among `targets`, with "all" spelled out."""
        named = frozenset(ROLES) if "all" in self.targets else frozenset(self.targets)
        return named & frozenset(ROLES)

    @property
    def expressions(self) -> tuple[str, ...]:
        """The regular expressions among `targets`."""
        return tuple(target for target in self.targets if target not in (*ROLES, "all"))

    def rank_for(self, name: str, n_in: int, n_out: int) -> int:
        """The rank of one matrix (n_out, n_in). Raises `RankError` above min(n_in, n_out)."""
        rank = self.rank
        for pattern, special in (self.rank_pattern or {}).items():
            if re.search(pattern, name):
                rank = special
                break
        if isinstance(rank, float):
            return max(1, round(rank * min(n_in, n_out)))
        if rank > min(n_in, n_out):
            raise RankError(
                f"{name}: rank {rank} is more than min(n_in, n_out) = {min(n_in, n_out)} of its "
                f"{n_out} x {n_in} matrix; a rank can be at most that"
            )
        return rank

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; keys at their defaults are left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LPAConfig:
        """The config that `to_dict` wrote. Raises `LPAError` for unknown keys and impossible values."""
        return cls(**values)


def check_rank(rank: Any, key: str = "rank") -> None:
    """Raise `RankError` unless `rank` is a positive whole number or a fraction in (0, 1]."""
    is_number = isinstance(rank, int | float) and not isinstance(rank, bool)
    if not is_number or rank <= 0 or (isinstance(rank, float) and not rank <= 1):
        raise RankError(
            f"{key} is {rank!r}; it must be a positive whole number, or a fraction in (0, 1] of the smaller "
            "side of each matrix"
        )


def _check_expression(key: str, expression: str) -> None:
    try:
        re.compile(expression)
    except re.error as error:
        raise LPAError(
            f"{key} has {expression!r}, which is neither one of {', '.join((*ROLES, 'all'))} "
            f"nor a regular expression ({error})"
        ) from error


def _readable(error: ValidationError) -> LPAError:
    """The first complaint as one sentence; errors of our own validators as they are."""
    first = error.errors(include_url=False)[0]
    cause = (first.get("ctx") or {}).get("error")
    if isinstance(cause, LPAError):
        return cause
    key = str(first["loc"][0]) if first["loc"] else "config"
    if key == "rank" and first["type"] == "missing":
        return RankError("rank is missing: LPAConfig(rank=128)")
    if key == "rank":
        return RankError(f"rank is {first['input']!r}; it must be a whole number or a fraction in (0, 1]")
    if first["type"] == "extra_forbidden":
        return LPAError(
            f"{key!r} is not a setting of LPAConfig; there are: {', '.join(LPAConfig.model_fields)}"
        )
    return LPAError(f"{key} is {first['input']!r}: {first['msg']}")
