"""What is shipped for which GPU: targets, tiles, and how a kernel is compiled for each.

A kernel module has a table of tiles that its launcher uses and `specs()`, the same table as what `aot`
compiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triton.backends.compiler import GPUTarget

HEAD_DIMS = (32, 64, 128, 256)
DTYPES = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Target:
    """A GPU to compile for, and the most shared memory a block may have there, in bytes."""

    gpu: GPUTarget
    max_shared: int

    @property
    def is_amd(self) -> bool:
        """Whether it is AMD's."""
        return self.gpu.backend == "hip"


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 166_912),
    "sm_86": Target(GPUTarget("cuda", 86, 32), 101_376),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 232_448),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 232_448),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 65_536),
}


@dataclass(frozen=True)
class Tile:
    """How a kernel cuts its work: rows and columns a block, warps, stages, and how float32 is multiplied."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    precision: str = "tf32x3"


@dataclass(frozen=True)
class CompileSpec:
    """One kernel as it is shipped for one target: what `aot` compiles."""

    name: str
    fn: Any
    types: Mapping[str, str]
    constexprs: Mapping[str, Any]
    aligned: tuple[str, ...]
    options: Mapping[str, Any]
    target: str
    dtype: str
    head_dim: int
