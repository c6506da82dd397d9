"""The config of a MemoryFormer language model, and the paper's three sizes."""

from __future__ import annotations

import difflib
from typing import Any

from transformers import PreTrainedConfig

from memoryformer.errors import MemoryFormerError

# layers, width, heads of Table 1
_PAPER = {"tiny": (6, 512, 8), "small": (12, 768, 12), "base": (24, 1024, 16)}
# The released ymls; small has half of the paper's layers, and base was not released.
_OFFICIAL = {"tiny": (6, 512, 8), "small": (6, 768, 8)}
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "expand": ("bits", "tables"),
    "score": ("scaled", "softmax"),
    "norm": ("layernorm", "rmsnorm"),
    "activation": (None, "gelu"),
}


class MemoryFormerConfig(PreTrainedConfig):
    """Sizes and forms of a `MemoryFormerForCausalLM`; the defaults are MF-tiny.

    Memory layers: `tau` bits a table, so `hidden_size / tau` tables; `expand_bits` more bits between the two
    layers of the block, or with `expand="tables"` twice the width and twice the tables; `score` and
    `temperature` of the retrieval weight; `activation` None or "gelu" before the second layer; `bias` of all
    memory layers. Around them: `norm` "layernorm" (with `layer_norm_eps`) or "rmsnorm", which is
    x / (rms + `rms_norm_eps`); the norm inside the block is always a LayerNorm. `rope_parameters` rotate the
    first quarter of each head by default, base 10,000.

    Initialisation: embedding, head and the tables of q, k and v are drawn from N(0, `initializer_range`²),
    None for the paper's sqrt(2 / (5 hidden_size)); the block's tables from N(0, `table_initializer_range`²).

    Raises `MemoryFormerError` for an impossible value, naming the key, the value and what is allowed, and for
    an unknown key that looks like a misspelt one.
    """

    model_type = "memoryformer"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012

    vocab_size: int = 50_304
    hidden_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    tau: int = 8
    expand_bits: int = 2
    expand: str = "bits"
    score: str = "scaled"
    temperature: float = 1.0
    norm: str = "layernorm"
    activation: str | None = None
    bias: bool = True
    max_position_embeddings: int = 2048
    rope_parameters: dict[str, Any] | None = None
    layer_norm_eps: float = 1e-5
    rms_norm_eps: float = 1e-8
    initializer_range: float | None = None
    table_initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **settings: Any) -> None:
        self._check_names(settings)
        self._check_values()
        super().__post_init__(**settings)
        self._check_rotary()

    @classmethod
    def preset(cls, name: str, variant: str = "paper", **changes: Any) -> MemoryFormerConfig:
        """The config "tiny", "small" or "base" of Table 1, with the vocabulary of Pythia's tokenizer.

        `variant` "paper" follows the text; "official" the released ymls (RMSNorm; small with 6 layers and 8
        heads; no base). `changes` are other fields of the config.

        Raises `MemoryFormerError` for an unknown name or variant, listing those there are.
        """
        sizes = {"paper": _PAPER, "official": _OFFICIAL}.get(variant)
        if sizes is None:
            raise MemoryFormerError(f"variant is {variant!r}; it may be 'paper' or 'official'")
        if name not in sizes:
            near = difflib.get_close_matches(name, sizes, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            hint = " The authors released no config of base: use variant='paper'." if name in _PAPER else hint
            raise MemoryFormerError(
                f"no preset {name!r} of the variant {variant!r}. There are: {', '.join(sizes)}.{hint}"
            )
        layers, width, heads = sizes[name]
        settings = {
            "num_hidden_layers": layers,
            "hidden_size": width,
            "num_attention_heads": heads,
            "norm": "rmsnorm" if variant == "official" else "layernorm",
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        return cls(**settings | changes)

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_key_value_heads(self) -> int:
        """Every query head has its own key and value."""
        return self.num_attention_heads

    def convert_rope_params_to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Give `rope_parameters` the paper's defaults: base 10,000 on 25 % of each head's dimensions."""
        given = kwargs.pop("rope_scaling", None) or self.rope_parameters or {}
        self.rope_parameters = {"rope_theta": 10_000.0, "partial_rotary_factor": 0.25, **given}
        self.standardize_rope_params()
        return kwargs

    def _check_names(self, settings: dict[str, Any]) -> None:
        own = list(MemoryFormerConfig.__annotations__)
        for key in settings:
            near = difflib.get_close_matches(key, own, n=1, cutoff=0.8)
            if near:
                raise MemoryFormerError(f"MemoryFormerConfig has no {key!r}; did you mean {near[0]!r}?")

    def _check_values(self) -> None:
        for key in _SIZES:
            if not _is_whole(getattr(self, key)) or getattr(self, key) < 1:
                raise MemoryFormerError(f"{key} is {getattr(self, key)!r}; it must be a whole number >= 1")
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise MemoryFormerError(
                    f"{key} is {getattr(self, key)!r}; it may be {' or '.join(map(repr, allowed))}"
                )
        if not _is_whole(self.tau) or not 1 <= self.tau <= 16:
            raise MemoryFormerError(f"tau is {self.tau!r}; it must be a whole number from 1 to 16")
        extra = self.expand_bits if self.expand == "bits" else 0
        if not _is_whole(self.expand_bits) or self.expand_bits < 0 or self.tau + extra > 16:
            raise MemoryFormerError(
                f"expand_bits is {self.expand_bits!r}; it must be a whole number from 0 to {16 - self.tau}: "
                "with tau they are at most 16 bits, and a table has 2**bits rows"
            )
        if not self.temperature > 0:
            raise MemoryFormerError(f"temperature is {self.temperature!r}; it must be above 0")
        for key in ("tau", "num_attention_heads"):
            _check_divides(self.hidden_size, getattr(self, key), key)

    def _check_rotary(self) -> None:
        factor = (self.rope_parameters or {})["partial_rotary_factor"]
        rotated = int(self.head_dim * factor)
        if not 0 < factor <= 1 or rotated < 2 or rotated % 2:
            raise MemoryFormerError(
                f"partial_rotary_factor {factor} of heads of width {self.head_dim} rotates {rotated} "
                "dimensions; it must be an even number from 2 to the head's width. Choose another factor in "
                "rope_parameters, or another num_attention_heads"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_divides(width: int, divisor: int, key: str) -> None:
    if width % divisor:
        below = width - width % divisor
        nearest = " and ".join(str(near) for near in (below, below + divisor) if near)
        raise MemoryFormerError(
            f"hidden_size {width} is not divisible by {key} {divisor}; the nearest widths that are: {nearest}"
        )
