"""The coefficients C and S of the series: how they start, grow with the training length, and are compared.

C and S are float32 [H, D, R]: wave k enters pair j of head h with weight C[h, k, j] in cos and S[h, k, j] in
sin. They start at Eye + noise, where Eye has a one at the pair's own wave, and are not trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import TypeAlias

import torch
import torch.distributed
from torch import Tensor, nn

from fope.config import FopeConfig
from fope.errors import FopeError

Pair: TypeAlias = tuple[Tensor, Tensor]


def eye(config: FopeConfig) -> Tensor:
    """A one where wave k is pair j's own, [D, R]: at (`config.row_step`·j, j)."""
    D, R = config.num_frequencies, config.num_kept
    ones = torch.zeros(D, R, dtype=torch.float32, device="cpu")
    pairs = torch.arange(R, device="cpu")
    pairs = pairs[pairs * config.row_step < D]
    ones[pairs * config.row_step, pairs] = 1.0
    return ones


def init_std(config: FopeConfig) -> float:
    """The standard deviation of the noise.

    The paper says N(0, σ²); the code that produced its results calls torch's xavier_normal_ with gain σ on
    the 3-D tensor [H, D, R], whose fans are D·R and H·R: std = σ·sqrt(2/(R·(D + H))). In 2-D (shared heads)
    it is σ·sqrt(2/(D + R)). The uniform kind has the same standard deviation.
    """
    D, R, H = config.num_frequencies, config.num_kept, config.num_heads
    if config.init == "eye" or not config.series:
        return 0.0
    if config.init_std is not None:
        return config.init_std
    if config.init == "eye_normal":
        return config.init_gain
    fans = R * (D + H) if config.separate_heads else D + R
    return config.init_gain * math.sqrt(2 / fans)


def draw(config: FopeConfig, generator: torch.Generator | None = None) -> Pair:
    """Draw C and S, float32 [H, D, R] on the CPU (H = 1 if heads share), with a CPU `generator`."""
    ones = eye(config)
    cos_noise, sin_noise = _noise(config, generator)
    return ones + cos_noise, ones + sin_noise


def _noise(config: FopeConfig, generator: torch.Generator | None) -> Pair:
    std = init_std(config)
    shape = (config.num_table_heads, config.num_frequencies, config.num_kept)

    def once() -> Tensor:
        noise = torch.zeros(shape, dtype=torch.float32, device="cpu")
        if std == 0:
            return noise
        if config.init == "eye_xavier_uniform":
            return noise.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)
        return noise.normal_(0, std, generator=generator)

    cos = once()
    return cos, once() if config.separate_basis else cos.clone()


def grow(
    cos_coef: Tensor,
    sin_coef: Tensor,
    old: FopeConfig,
    new: FopeConfig,
    generator: torch.Generator | None = None,
) -> Pair:
    """C and S for a longer training length: the old ones fill the top left block, what is new gets eye and
    noise.

    New rows of an old column get noise only: its pair has its own wave already. (The released code puts a
    second one there.) Raises `FopeError` if the two banks are not the same bank cut at different floors.
    """
    for name in ("head_dim", "num_heads", "theta", "oversample", "rotary_dim", "separate_heads"):
        if getattr(old, name) != getattr(new, name):
            raise FopeError(
                f"coefficients cannot grow from {name}={getattr(old, name)} to {getattr(new, name)}: "
                "the waves would not be the same; only the length may change"
            )
    D, R = old.num_frequencies, old.num_kept
    if new.num_frequencies < D or new.num_kept < R:
        raise FopeError(
            f"coefficients do not shrink: [{D}, {R}] of train_length {old.train_length} to "
            f"[{new.num_frequencies}, {new.num_kept}] of {new.train_length}; give a longer train_length, or "
            "convert the RoPE model anew"
        )
    ones = eye(dataclasses.replace(new, dominant="own"))
    ones[:, :R] = 0
    grown = []
    for noise, coef in zip(_noise(new, generator), (cos_coef, sin_coef), strict=True):
        fresh = ones + noise
        fresh[:, :D, :R] = coef.detach().float().cpu()
        grown.append(fresh)
    return grown[0], grown[1]


def normalize(coef: Tensor) -> Tensor:
    """Divide each column of [H, D, R] by its sum. Raises `FopeError` where a sum is too close to zero."""
    sums = coef.sum(dim=-2, keepdim=True)
    if not torch.compiler.is_compiling():
        smallest = sums.detach().abs().min()
        if not smallest >= 0.1:
            raise FopeError(
                f"a column of coefficients sums to {smallest.item():.3g}, too close to zero to divide by; "
                "use a smaller init_gain or normalize=False"
            )
    return coef / sums


def check_finite(name: str, coef: Tensor) -> None:
    """Raise `FopeError` that names the first entry which is NaN or infinite."""
    if not torch.isfinite(coef).all():
        place = (~torch.isfinite(coef)).nonzero()[0].tolist()
        raise FopeError(f"{name}{place} is {coef[tuple(place)].item()}: coefficients must be finite numbers")


def checksum(*coefs: Tensor) -> int:
    """A number below 2^63 that is equal for equal coefficients, whatever device they are on."""
    digest = hashlib.sha256()
    for coef in coefs:
        digest.update(coef.detach().float().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def check_ranks(module: nn.Module, group: torch.distributed.ProcessGroup | None = None) -> None:
    """Raise `FopeError`, on every rank, if the ranks of `group` have drawn different coefficients.

    Call it before the first training step, on all ranks: one collective for all the embeddings in `module`.
    Coefficients that are trained and that FSDP2 has sharded are left out: they are one tensor for all ranks.
    Without torch.distributed it does nothing.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    from torch.distributed.tensor import DTensor

    found = [value for name, value in module.state_dict().items() if name.endswith(("cos_coef", "sin_coef"))]
    state = [value for value in found if not isinstance(value, DTensor)]
    own = torch.tensor([checksum(*state), len(state)], device=found[0].device if found else "cpu")
    ranks = [torch.zeros_like(own) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(ranks, own, group=group)
    for rank, theirs in enumerate(ranks):
        if not torch.equal(theirs, ranks[0]):
            raise FopeError(
                f"coefficients differ between rank 0 and rank {rank}: they are random and must be equal; "
                "give every rank the same seed, or load the same checkpoint"
            )
