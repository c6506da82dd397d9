"""How the attention kernels cut their work, by kernel, dtype, head_dim and target.

Found by compiling ahead of time: the largest of a few tiles that keeps everything in registers and fits the
shared memory in every variant, causal or not, packed or not, with queries rotated or not (one has to do for
all: they differ by little in what they need). None of the tiles has been timed on a GPU.
"""

from __future__ import annotations

from torch import Tensor

from fope_triton.backend import DTYPE_NAMES, target_of
from fope_triton.tiles import TARGETS, Tile

INTERPRETED = Tile(16, 16, 4, 1, "ieee")  # many blocks of few tokens

# Queries, keys, warps, stages on each of TARGETS.
TILES = {
    ("attention_fwd", "bf16"): {
        32: ((128, 64, 4, 3), (128, 64, 4, 3), (128, 64, 4, 3), (128, 64, 4, 3), (128, 64, 4, 2)),
        64: ((128, 64, 4, 3), (128, 64, 4, 3), (128, 64, 4, 3), (128, 64, 4, 3), (128, 64, 4, 2)),
        128: ((128, 64, 8, 3), (128, 64, 8, 3), (128, 64, 8, 3), (128, 64, 8, 3), (64, 64, 4, 2)),
        256: ((64, 64, 8, 2), (64, 32, 8, 2), (128, 64, 8, 2), (64, 64, 8, 2), (64, 32, 4, 2)),
    },
    ("attention_fwd", "fp32"): {
        32: ((64, 32, 4, 2), (64, 32, 4, 2), (64, 64, 4, 2), (64, 64, 4, 2), (64, 64, 4, 2)),
        64: ((64, 32, 8, 2), (64, 32, 4, 2), (64, 32, 4, 2), (64, 32, 4, 2), (64, 32, 4, 2)),
        128: ((32, 32, 8, 2), (32, 32, 8, 2), (32, 32, 8, 2), (64, 32, 8, 2), (64, 32, 8, 2)),
        256: ((16, 16, 8, 2), (16, 16, 8, 2), (16, 16, 8, 2), (16, 16, 8, 2), (32, 16, 8, 2)),
    },
    ("attention_bwd_dq", "bf16"): {
        32: ((64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 2)),
        64: ((128, 64, 8, 2), (128, 64, 8, 2), (128, 64, 8, 2), (128, 64, 8, 2), (64, 64, 4, 2)),
        128: ((64, 32, 8, 2), (64, 32, 8, 2), (64, 64, 8, 2), (64, 64, 8, 2), (64, 32, 8, 1)),
        256: ((64, 32, 8, 2), (32, 32, 8, 2), (64, 32, 8, 2), (64, 32, 8, 2), (32, 16, 8, 2)),
    },
    ("attention_bwd_dq", "fp32"): {
        32: ((32, 32, 4, 2), (32, 32, 4, 2), (32, 32, 4, 2), (32, 32, 4, 2), (32, 64, 4, 2)),
        64: ((32, 16, 8, 2), (32, 16, 8, 2), (32, 16, 4, 2), (64, 32, 8, 2), (64, 32, 8, 2)),
        128: ((16, 16, 4, 2), (16, 16, 8, 2), (16, 16, 8, 2), (16, 16, 8, 2), (32, 16, 8, 2)),
        256: ((16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 4, 1)),
    },
    ("attention_bwd_dkv", "bf16"): {
        32: ((64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 3), (64, 64, 4, 2)),
        64: ((32, 64, 4, 2), (32, 64, 4, 2), (64, 128, 8, 2), (64, 128, 8, 2), (32, 64, 4, 2)),
        128: ((32, 32, 4, 2), (32, 32, 4, 2), (64, 64, 8, 2), (32, 64, 8, 2), (32, 32, 4, 1)),
        256: ((32, 32, 8, 2), (32, 32, 8, 2), (32, 32, 8, 2), (32, 64, 8, 2), (16, 32, 8, 1)),
    },
    ("attention_bwd_dkv", "fp32"): {
        32: ((16, 32, 4, 2), (16, 32, 4, 2), (16, 32, 4, 2), (16, 32, 4, 2), (32, 32, 4, 2)),
        64: ((32, 16, 4, 1), (32, 16, 4, 1), (32, 16, 4, 1), (32, 16, 4, 1), (16, 32, 4, 2)),
        128: ((16, 16, 8, 2), (16, 16, 8, 2), (16, 16, 8, 2), (16, 16, 8, 2), (16, 16, 8, 2)),
        256: ((16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 8, 1), (16, 16, 4, 1)),
    },
}


def tile_for(kernel: str, dtype: str, head_dim: int, target: str) -> Tile:
    """Return the tile; float16 has bfloat16's."""
    sizes = TILES[kernel, "fp32" if dtype == "fp32" else "bf16"][head_dim]
    shape = dict(zip(TARGETS, sizes, strict=True))[target]
    return Tile(*shape, precision(kernel, head_dim, target))


def precision(kernel: str, head_dim: int, target: str) -> str:
    """Return how float32 is multiplied: in three TF32 products on NVIDIA's tensor cores, as it is on AMD's.

    At head_dim 256 the backward pass has no registers for three, and multiplies without tensor cores.
    """
    three = not TARGETS[target].is_amd and not (head_dim == 256 and "bwd" in kernel)
    return "tf32x3" if three else "ieee"


def tile_of(kernel: str, x: Tensor) -> Tile:
    """Return the tile for x [..., head_dim] on its GPU, or in the interpreter."""
    return tile_for(kernel, DTYPE_NAMES[x.dtype], x.shape[-1], target_of(x)) if x.is_cuda else INTERPRETED
