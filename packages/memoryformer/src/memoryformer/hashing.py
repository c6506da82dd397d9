"""The row numbers and the weights of a chunk of tau numbers, by their definition in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from memoryformer.errors import MemoryFormerError

SCORES = ("scaled", "softmax")
MAX_TAU = 16
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def hash_codes(z: Tensor) -> Tensor:
    """Return the row numbers of chunks z [..., tau]: int64 [...], in 0 .. 2^tau - 1.

    bit_i = 1 if z_i >= 0 (so for -0.0 too; NaN gives 0), and the first number of the chunk is the most
    significant bit: code = Σ_i bit_i 2^(tau-1-i), in integers. Raises `MemoryFormerError` for integer input
    or a tau outside 1..16.
    """
    tau = check_chunks(z)
    powers = 2 ** torch.arange(tau - 1, -1, -1, device=z.device, dtype=torch.int32)
    return ((z >= 0) * powers).sum(-1, dtype=torch.int32).long()


def hash_weights(z: Tensor, *, score: str = "scaled", temperature: float = 1.0) -> Tensor:
    """Return the weights of the rows that chunks z [..., tau] fetch: [...], differentiable.

    p = Π_i 1 / (1 + exp(-2|z_i|/t)) is the softmax over all sign patterns u of <z, u>/t, at u = sign(z)
    (Eq. 9-11); `score="softmax"` returns p, `score="scaled"` p · Σ_i |z_i|/t, as the authors' code does.
    float32, or float64 for float64 input. Raises `MemoryFormerError` for an unknown score, a temperature
    that is not positive, integer input, or a tau outside 1..16.
    """
    check_chunks(z)
    check_score(score, temperature)
    size = z.to(weight_dtype(z)).abs() / temperature
    p = torch.sigmoid(2 * size).prod(-1)
    return p * size.sum(-1) if score == "scaled" else p


def weight_gradients(z: Tensor, *, score: str, temperature: float) -> Tensor:
    """Return ∂w/∂z of `hash_weights`, z [..., tau] -> [..., tau], in closed form.

    softmax: p s_i (2/t) σ(-2|z_i|/t);  scaled: s_i (p/t) (1 + Σ_j |z_j|/t · 2 σ(-2|z_i|/t)); s_i = sign(z_i),
    0 at 0.
    """
    z = z.to(weight_dtype(z))
    size = z.abs() / temperature
    p = torch.sigmoid(2 * size).prod(-1, keepdim=True)
    slope = 2 * torch.sigmoid(-2 * size)
    if score == "scaled":
        slope = 1 + size.sum(-1, keepdim=True) * slope
    return torch.sign(z) * slope * (p / temperature)


def weight_dtype(z: Tensor) -> torch.dtype:
    """Weights and sums are float32, or float64 for float64 input."""
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def check_chunks(z: Tensor) -> int:
    """Return tau of chunks z [..., tau]. Raises `MemoryFormerError` if nothing can be hashed."""
    if z.dtype not in FLOATS:
        raise MemoryFormerError(
            f"the input is {name_of(z.dtype)}; a Memory Layer hashes the signs of float32, bfloat16, "
            "float16 or float64 numbers: convert it, or embed token ids first"
        )
    tau = z.shape[-1] if z.ndim else 0
    check_tau(tau)
    return tau


def check_tau(tau: int, heading: str = "tau", columns: int = 1) -> None:
    """See that 2^tau rows are possible. Raises `MemoryFormerError` with the bytes they would need."""
    whole = isinstance(tau, int) and not isinstance(tau, bool)
    if whole and 1 <= tau <= MAX_TAU:
        return
    wrong = f"{heading} is {tau}; it must be an integer from 1 to {MAX_TAU}"
    if whole and MAX_TAU < tau <= 64:
        wrong += f": tables of 2^{tau} rows and {columns:,} columns would take {4 * 2**tau * columns:,} bytes"
    raise MemoryFormerError(wrong)


def check_score(score: str, temperature: float) -> None:
    """See that the weight is defined. Raises `MemoryFormerError`."""
    if score not in SCORES:
        raise MemoryFormerError(f"unknown score {score!r}; it must be {' or '.join(map(repr, SCORES))}")
    if not 0 < temperature < float("inf"):
        raise MemoryFormerError(f"temperature is {temperature}; it must be positive and finite")


def name_of(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
