"""The Memory Layer, which replaces a fully connected layer, and the Memory Block, which replaces an FFN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memoryformer import ops
from memoryformer.errors import MemoryFormerError
from memoryformer.functional import hash_codes, hash_weights, memory_lookup
from memoryformer.hashing import check_score, check_tau
from memoryformer.machine import check_tables_fit, empty_tables

BIAS_STD = 0.001


class LookupLayer(nn.Module):
    """What layers with tables of any kind have in common: sizes, score, and the hash of their input."""

    tables: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, tau: int, score: str, temperature: float) -> None:
        super().__init__()
        check_sizes(in_features, out_features, tau)
        check_score(score, temperature)
        self.in_features, self.out_features, self.tau = in_features, out_features, tau
        self.num_chunks = in_features // tau
        self.score, self.temperature = score, temperature

    def _look_up(self, x: Tensor, stored: Mapping[str, Any]) -> Tensor:
        # With caches that other layers have filled, each line of Python is a microsecond of a decoded token:
        # so the tensors come from where the module stores them, which its attributes find by more Python.
        try:
            tables, bias, scales = stored["tables"], stored["bias"], stored.get("scales")
        except KeyError:  # a parametrization computes them
            tables, bias, scales = self.tables, self.bias, getattr(self, "scales", None)
        y = ops.direct(x, tables, bias, scales, self.score, self.temperature)
        if y is not None:
            return y
        check_input(x, self)
        z = x.reshape(-1, self.num_chunks, self.tau)
        y = memory_lookup(z, tables, bias, score=self.score, temperature=self.temperature, scales=scales)
        return y if x.ndim == 2 else y.view(*x.shape[:-1], y.shape[1])

    def hash(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows that x [..., in_features] fetches, int64 [..., K], and their weights."""
        z = chunked(x, self)
        return hash_codes(z), hash_weights(z, score=self.score, temperature=self.temperature)

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        return (
            f"{self.in_features}, {self.out_features}, tau={self.tau}, score={self.score!r}, "
            f"temperature={self.temperature}" + ("" if self.bias is not None else ", bias=False")
        )


class MemoryLayer(LookupLayer):
    """y = Σ_k w_k T[k, code_k] + b over the K = in_features / tau chunks of the input (section 2.1).

    `tables` [K, 2^tau, out_features] and `bias` [out_features] are parameters: float32, bfloat16 or float16
    (or float64), drawn from N(0, init_std²) and N(0, 0.001²). [..., in_features] -> [..., out_features] in
    the dtype of the input, summed in float32. `load_state_dict` takes the authors' [K·2^tau, out_features]
    too. Raises `MemoryFormerError` for widths, tau, score or temperature that are impossible, and for tables
    that the free memory does not hold.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        tau: int,
        *,
        score: str = "scaled",
        temperature: float = 1.0,
        bias: bool = True,
        init_std: float = 0.02,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, tau, score, temperature)
        self.init_std = init_std
        shape = (self.num_chunks, 2**tau, out_features)
        check_tables_fit(shape, dtype, device)
        self.tables = nn.Parameter(empty_tables(shape, dtype, device))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw tables and bias anew."""
        nn.init.normal_(self.tables, std=self.init_std)
        if self.bias is not None:
            nn.init.normal_(self.bias, std=BIAS_STD)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return self._look_up(x, self._parameters)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        tables = state_dict.get(prefix + "tables")
        if isinstance(tables, Tensor) and tables.ndim == 2:  # the authors' layout
            rows, width = self.num_chunks * 2**self.tau, self.out_features
            if tables.shape != (rows, width):
                raise MemoryFormerError(
                    f"{prefix}tables is {list(tables.shape)}; with {self.num_chunks} chunks of tau = "
                    f"{self.tau} and {width} outputs it must be [{rows}, {width}]"
                )
            state_dict[prefix + "tables"] = tables.reshape(self.tables.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class MemoryBlock(nn.Module):
    """y = layer2(norm(layer1(x))), in place of a feed-forward block (section 2.3).

    With K = hidden_size / tau chunks, `layer1` makes (tau + expand_bits)·K numbers and the tables of `layer2`
    have 2^(tau + expand_bits) rows; `expand="tables"` instead doubles the width between and keeps tau.
    `activation="gelu"` stands between norm and layer2 (the paper's Table 6: not needed). The norm is
    LayerNorm. Raises `MemoryFormerError` as `MemoryLayer` does.
    """

    def __init__(
        self,
        hidden_size: int,
        tau: int = 8,
        expand_bits: int = 2,
        score: str = "scaled",
        temperature: float = 1.0,
        expand: str = "bits",
        activation: str | None = None,
        *,
        bias: bool = True,
        init_std: float = 0.02,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sizes(hidden_size, hidden_size, tau)
        if expand not in ("bits", "tables"):
            raise MemoryFormerError(f"unknown expand {expand!r}; it must be 'bits' or 'tables'")
        if activation not in (None, "gelu"):
            raise MemoryFormerError(f"unknown activation {activation!r}; it must be None or 'gelu'")
        if isinstance(expand_bits, bool) or not isinstance(expand_bits, int) or expand_bits < 0:
            raise MemoryFormerError(f"expand_bits is {expand_bits}; it must be an integer, 0 or more")
        second_tau = tau + expand_bits if expand == "bits" else tau
        check_tau(second_tau, "tau + expand_bits")
        middle = second_tau * (hidden_size // tau) * (1 if expand == "bits" else 2)
        self.activation = activation
        common: dict[str, Any] = {
            "score": score,
            "temperature": temperature,
            "bias": bias,
            "init_std": init_std,
            "device": device,
            "dtype": dtype,
        }
        self.layer1 = MemoryLayer(hidden_size, middle, tau, **common)
        self.norm = nn.LayerNorm(middle, device=device, dtype=dtype)
        self.layer2 = MemoryLayer(middle, hidden_size, second_tau, **common)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden_size] -> [..., hidden_size]."""
        x = self.norm(self.layer1(x))
        return self.layer2(x if self.activation is None else F.gelu(x))


def chunked(x: Tensor, layer: LookupLayer) -> Tensor:
    """Return x [..., in_features] as chunks [..., K, tau]. Raises `MemoryFormerError` for another width."""
    check_input(x, layer)
    return x.view(*x.shape[:-1], layer.num_chunks, layer.tau)


def check_input(x: Tensor, layer: LookupLayer) -> None:
    """See that x is [..., in_features]. Raises `MemoryFormerError`."""
    if x.ndim == 0 or x.shape[-1] != layer.in_features:
        raise MemoryFormerError(
            f"expected an input [..., {layer.in_features}], got {list(x.shape)}, for {layer}"
        )


def check_sizes(in_features: int, out_features: int, tau: int) -> None:
    """See that a layer of these sizes can be. Raises `MemoryFormerError`."""
    for name, size in (("in_features", in_features), ("out_features", out_features)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise MemoryFormerError(f"{name} is {size}; it must be an integer, at least 1")
    check_tau(tau, columns=max(1, in_features // max(1, tau)) * out_features)
    if in_features % tau:
        lower = in_features // tau * tau
        nearest = f"widths are {lower} and {lower + tau}" if lower else f"width is {tau}"
        raise MemoryFormerError(
            f"in_features is {in_features}, which tau = {tau} does not divide; the nearest {nearest}"
        )
