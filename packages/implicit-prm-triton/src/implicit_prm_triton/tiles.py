"""What is shipped for which GPU: targets, tiles, and how a kernel is compiled for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triton.backends.compiler import GPUTarget


@dataclass(frozen=True)
class Target:
    """A GPU to compile for, and the most shared memory a block may have there, in bytes."""

    gpu: GPUTarget
    max_shared: int


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 166_912),
    "sm_86": Target(GPUTarget("cuda", 86, 32), 101_376),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 232_448),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 232_448),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 65_536),
}


@dataclass(frozen=True)
class CompileSpec:
    """One kernel as it is shipped for one target: what `aot` compiles. `head_dim` is the hidden width d."""

    name: str
    fn: Any
    types: Mapping[str, str]
    constexprs: Mapping[str, Any]
    aligned: tuple[str, ...]
    options: Mapping[str, Any]
    target: str
    dtype: str
    head_dim: int


@dataclass(frozen=True)
class Tile:
    """How the forward kernel cuts its product: rows, words and hidden numbers a block, warps and stages."""

    rows: int
    words: int
    hidden: int
    num_warps: int
    num_stages: int

    @property
    def blocks(self) -> dict[str, int]:
        """The constants of the kernel."""
        return {"BLOCK_N": self.rows, "BLOCK_V": self.words, "BLOCK_D": self.hidden}

    @property
    def options(self) -> dict[str, int]:
        """What Triton is told at a launch."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}


HALF = Tile(rows=64, words=128, hidden=64, num_warps=8, num_stages=3)
SINGLE = Tile(rows=32, words=64, hidden=32, num_warps=4, num_stages=2)
SLOPE_BLOCK = 1024
"""Words a step of a block in the backward pass."""


def product_tile(itemsize: int) -> Tile:
    """The tile for hidden states of `itemsize` bytes a number."""
    return HALF if itemsize == 2 else SINGLE
