"""How the attention kernels cut their work, by kernel, dtype, head_dim and target."""

from __future__ import annotations

from torch import Tensor

from fope_triton.backend import DTYPE_NAMES, target_of
from fope_triton.tiles import Tile

INTERPRETED = Tile(16, 16, 4, 1)  # many blocks of few tokens


def tile_for(kernel: str, dtype: str, head_dim: int, target: str) -> Tile:
    """Return the tile; float16 has bfloat16's."""
    return Tile(32, 32, 4, 2)


def tile_of(kernel: str, x: Tensor) -> Tile:
    """Return the tile for x [..., head_dim] on its GPU, or in the interpreter."""
    return tile_for(kernel, DTYPE_NAMES[x.dtype], x.shape[-1], target_of(x)) if x.is_cuda else INTERPRETED
