"""The config of a Fourier position embedding, and the flavours that exist."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fope.errors import FopeError
from fope.frequencies import kept_frequencies, rope_frequencies

Init = Literal["eye_xavier_normal", "eye_xavier_uniform", "eye_normal", "eye"]
CHOICES: dict[str, tuple[object, ...]] = {
    "init": get_args(Init),
    "angle_dtype": ("float64", "float32"),
    "dominant": ("own", "step"),
    "direction": (1, -1),
}
SWITCHES = (
    "strict", "clip", "series", "separate_heads", "separate_basis", "normalize", "learnable", "interleaved"
)  # fmt: skip


@dataclass(frozen=True)
class FopeConfig:
    """What a Fourier position embedding is made of.

    `head_dim` d_h, `num_heads` the heads that own coefficients (the *key-value* heads), `train_length` L,
    which fixes the floor 2π/L, `theta` RoPE's base.

    Coefficients: `init_gain` σ and `init` their start (`init_std` overrides the standard deviation),
    `oversample` r the fineness of the bank of waves that each series may use, `num_inv_freq` a bank of
    exactly that many frequencies wherever the floor is, `series` False for clipping alone (CF only),
    `separate_heads` a set for each head, `separate_basis` different draws for cosine and sine, `normalize`
    columns divided by their sum, `learnable` trained.

    Clipping: `clip` False keeps every frequency (FS only), `strict` keeps only those above the floor,
    `max_pairs` caps the rotated pairs, `zero_sin` ζ is the sine of a clipped pair (its cosine is 1).

    Layout: `interleaved` pairs channels (2j, 2j+1) instead of (j, j+d/2), `rotary_dim` rotates the first
    channels only, `direction` −1 turns the other way. `angle_dtype` "float64" rounds after cos and sin,
    "float32" is the released code's.

    `dominant` says which wave leads a pair's series: its "own", or with "step" that of row ceil(D/R)·j, as
    the released code has it (for some lengths another pair's).

    Raises `FopeError` that names the value and what is allowed.
    """

    head_dim: int
    num_heads: int
    train_length: int
    theta: float = 10_000.0
    init_gain: float = 0.3
    init: Init = "eye_xavier_normal"
    init_std: float | None = None
    oversample: int = 1
    num_inv_freq: int | None = None
    max_pairs: int | None = None
    zero_sin: float = 1.0
    strict: bool = False
    clip: bool = True
    series: bool = True
    separate_heads: bool = True
    separate_basis: bool = True
    normalize: bool = False
    learnable: bool = False
    direction: int = 1
    interleaved: bool = False
    rotary_dim: int | None = None
    angle_dtype: Literal["float64", "float32"] = "float64"
    dominant: Literal["own", "step"] = "own"

    def __post_init__(self) -> None:
        self._check_shape()
        self._check_coefficients()
        _ = self.num_kept  # raises where no frequency is left

    def _check_shape(self) -> None:
        for name in ("head_dim", "num_heads", "train_length", "oversample"):
            _check_whole(name, getattr(self, name))
        for name in ("rotary_dim", "num_inv_freq", "max_pairs"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name))
        if self.head_dim % 2:
            raise FopeError(f"head_dim must be even, since channels turn in pairs, got {self.head_dim}")
        if self.rotary_dim is not None and (self.rotary_dim > self.head_dim or self.rotary_dim % 2):
            raise FopeError(
                f"rotary_dim must be even and at most head_dim {self.head_dim}, got {self.rotary_dim}"
            )
        for name, most in (("num_inv_freq", self.oversample * self.num_pairs), ("max_pairs", self.num_pairs)):
            if (getattr(self, name) or 0) > most:
                raise FopeError(
                    f"{name} must be at most {most}, all that there are, got {getattr(self, name)}"
                )
        if not (_is_number(self.theta) and 1 < self.theta < math.inf):
            raise FopeError(f"theta must be a finite number above 1, got {self.theta!r}")

    def _check_coefficients(self) -> None:
        for name in ("init_gain", "init_std"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value < math.inf):
                raise FopeError(f"{name} must be a finite number of at least 0, got {value!r}")
        if not (_is_number(self.zero_sin) and math.isfinite(self.zero_sin)):
            raise FopeError(f"zero_sin must be a finite number, as a rule 1 or 0, got {self.zero_sin!r}")
        allowed = dict.fromkeys(SWITCHES, (True, False)) | CHOICES
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                listed = ", ".join(map(repr, values))
                raise FopeError(f"{name} must be one of {listed}, got {getattr(self, name)!r}")

    @property
    def dim(self) -> int:
        """Channels that are rotated: `rotary_dim`, or all of `head_dim`."""
        return self.rotary_dim or self.head_dim

    @property
    def num_pairs(self) -> int:
        """P, the pairs of channels."""
        return self.dim // 2

    @cached_property
    def num_kept(self) -> int:
        """R, the pairs that are rotated; the other P − R have frequency zero."""
        kept = 1 + (self.num_frequencies - 1) // self.oversample  # the pairs j with row r·j in the bank
        return kept if self.max_pairs is None else min(kept, self.max_pairs)

    def bank(self) -> Tensor:
        """Ω, the frequencies of the basis, [D], in `angle_dtype`."""
        dtype = getattr(torch, self.angle_dtype)
        return rope_frequencies(self.dim, self.theta, self.oversample, dtype)[: self.num_frequencies]

    @cached_property
    def num_frequencies(self) -> int:
        """D, the frequencies of the basis."""
        if self.num_inv_freq is not None:
            return self.num_inv_freq
        if not self.clip:
            return self.oversample * self.num_pairs
        kept = kept_frequencies(
            self.dim, self.theta, self.train_length, strict=self.strict, oversample=self.oversample
        )
        return kept.numel()

    @property
    def row_step(self) -> int:
        """The leading one of pair j stands in row `row_step`·j of its column of coefficients."""
        if self.dominant == "step":
            return math.ceil(self.num_frequencies / self.num_kept)
        return self.oversample

    @property
    def num_table_heads(self) -> int:
        """H, or 1 if the heads share their coefficients."""
        return self.num_heads if self.separate_heads else 1

    @classmethod
    def olmo(
        cls,
        head_dim: int,
        num_heads: int,
        train_length: int,
        *,
        theta: float = 10_000.0,
        init_gain: float = 0.3,
        fourier_dim: int = 0,
    ) -> FopeConfig:
        """The released code, quirks included.

        `fourier_dim` is r·d_h (0 means d_h). At most d_h/4 pairs are rotated; the leading ones stand every
        ceil(D/R) rows, which for some lengths are the wrong rows; angles are float32.
        """
        if fourier_dim % head_dim:
            raise FopeError(f"fourier_dim must be a multiple of head_dim {head_dim}, got {fourier_dim}")
        oversample = max(1, fourier_dim // head_dim)
        return cls(
            head_dim=head_dim,
            num_heads=num_heads,
            train_length=train_length,
            theta=theta,
            init_gain=init_gain,
            oversample=oversample,
            max_pairs=head_dim // 4,
            angle_dtype="float32",
            dominant="step",
        )

    @classmethod
    def intern_s1(
        cls,
        head_dim: int,
        num_heads: int,
        max_position_embeddings: int,
        *,
        theta: float = 5e6,
        init_gain: float = 0.5,
        num_inv_freq: int | None = None,
        separate_heads: bool = True,
    ) -> FopeConfig:
        """Intern-S1-Pro: only frequencies above 2π/max_position_embeddings, one set for all layers, ζ = 1."""
        return cls(
            head_dim=head_dim,
            num_heads=num_heads,
            train_length=max_position_embeddings,
            theta=theta,
            init_gain=init_gain,
            num_inv_freq=num_inv_freq,
            separate_heads=separate_heads,
            strict=True,
            angle_dtype="float32",
        )

    @classmethod
    def paper_text(cls, head_dim: int, num_heads: int, train_length: int, **options: Any) -> FopeConfig:
        """The letter of the paper: noise N(0, σ²) about the leading one; clipped pairs have cos 1, sin 0."""
        return cls(
            head_dim=head_dim,
            num_heads=num_heads,
            train_length=train_length,
            init="eye_normal",
            zero_sin=0.0,
            **options,
        )

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary, which `from_dict` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FopeConfig:
        """The config of such a dictionary. Raises `FopeError` for an unknown or a missing key."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := sorted(set(settings) - set(fields)):
            raise FopeError(f"unknown FoPE setting {', '.join(unknown)}; there are {', '.join(fields)}")
        needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
        if missing := [name for name in needed if name not in settings]:
            raise FopeError(f"a FoPE config needs {', '.join(missing)}")
        return cls(**settings)

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> FopeConfig:
        """Read what `to_json` wrote. Raises `FopeError` as `from_dict` does, and for no JSON object."""
        try:
            settings = json.loads(text)
        except json.JSONDecodeError as error:
            raise FopeError(f"a FoPE config must be a JSON object: {error}") from error
        if not isinstance(settings, dict):
            raise FopeError(f"a FoPE config must be a JSON object, got {type(settings).__name__}")
        return cls.from_dict(settings)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return
    if name == "train_length" and isinstance(value, int) and value <= 0:
        raise FopeError(f"no frequency has a full period in L={value}: train_length must be at least 7")
    raise FopeError(f"{name} must be a whole number of at least 1, got {value!r}")
