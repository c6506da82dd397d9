"""How the two factors start. The official code sets nothing, and that decides more than the paper says.

With x of unit variance, the standard deviation of y = B A x, and that of a dense layer of PyTorch's default:

    torch     A ~ U(+-1/sqrt(n_in)), B ~ U(+-1/sqrt(r)): 1/3, against 1/sqrt(3) = 0.577 of the dense layer
    hf        A, B ~ N(0, std^2): the entries of B A have std^2 sqrt(r), far below the dense layer's std
    matched   A ~ N(0, s_A^2), B ~ N(0, s_B^2): that of the dense layer with standard deviation s, where
              s_A = (s^2 n_out / (r n_in))^(1/4), s_B = (s^2 n_in / (r n_out))^(1/4);
              then Var[(B A)_ij] = s^2, and the factors have equal Frobenius norms
    spectral  the truncated SVD of the dense start (Khodak et al. 2021)
"""

from __future__ import annotations

import math

import torch
from torch import nn

from lpa.config import Init
from lpa.errors import LPAError
from lpa.svd import svd_factors

HF_STD = 0.02  # transformers' `initializer_range`


@torch.no_grad()
def initialize_factors(
    down: torch.Tensor,
    up: torch.Tensor,
    init: Init,
    *,
    std: float | None = None,
    dense: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Fill A `down` (r, n_in) and B `up` (n_out, r) in place.

    `std` is that of the dense layer for "matched" (default: PyTorch's, 1/sqrt(3 n_in)) and of the factors for
    "hf" (default 0.02); `dense` (n_out, n_in) is the dense start, which "spectral" needs.
    Raises `LPAError` for an `init` that there is not, and for "spectral" without `dense`.
    """
    rank, n_in = down.shape
    n_out = up.shape[0]
    if init == "torch":
        nn.init.uniform_(down, -1 / math.sqrt(n_in), 1 / math.sqrt(n_in), generator=generator)
        nn.init.uniform_(up, -1 / math.sqrt(rank), 1 / math.sqrt(rank), generator=generator)
    elif init == "hf":
        nn.init.normal_(down, std=std or HF_STD, generator=generator)
        nn.init.normal_(up, std=std or HF_STD, generator=generator)
    elif init == "matched":
        variance = std**2 if std is not None else 1 / (3 * n_in)
        nn.init.normal_(down, std=(variance * n_out / (rank * n_in)) ** 0.25, generator=generator)
        nn.init.normal_(up, std=(variance * n_in / (rank * n_out)) ** 0.25, generator=generator)
    elif init != "spectral":
        raise LPAError(f"init is {init!r}; it may be 'torch', 'hf', 'matched' or 'spectral'")
    else:
        if dense is None:
            raise LPAError("init 'spectral' needs the dense matrix that it decomposes")
        for factor, value in zip((down, up), svd_factors(dense, rank), strict=True):
            factor.copy_(value)


@torch.no_grad()
def initialize_bias(bias: torch.Tensor, fan_in: int, generator: torch.Generator | None = None) -> None:
    """PyTorch's default for the bias of a linear layer, U(+-1/sqrt(fan_in)), in place."""
    nn.init.uniform_(bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
