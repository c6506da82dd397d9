"""What is shipped for which GPU: targets, tiles, and how a kernel is compiled for each.

Tiles depend on the width h of the tables' rows; the launchers and `shipped` take them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import triton
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
    """One kernel as it is shipped for one target: what `aot` compiles. `head_dim` is the width h."""

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
    """How a kernel cuts its work: things a block (tokens, chunks or parts), columns a block, and warps."""

    things: int
    columns: int
    num_warps: int

    @property
    def options(self) -> dict[str, int]:
        """What Triton is told at a launch."""
        return {"num_warps": self.num_warps}


# One thread a chunk.
CHUNKS = Tile(things=128, columns=1, num_warps=4)


def lookup_tile(width: int, widens: bool) -> Tile:
    """Return 16 tokens by up to 256 columns: 32 sums a thread, four loads of 16 bytes in bfloat16.

    `widens`: y has more bytes a number than the tables (int8; bfloat16 in a float32 model). Then 16 sums, for
    with 32 the compiler spills, of int8 on sm_80 and of bfloat16 on sm_100.
    """
    return tile(16, columns_of(width, 256), 16 if widens else 32)


def small_lookup_tile(width: int) -> Tile:
    """Return 16 chunks of one token by up to 128 columns: few tokens still make many blocks."""
    return tile(16, columns_of(width, 128), 16)


def sorted_tile(width: int) -> Tile:
    """Return tokens of a bucket by a whole row, up to 2048 columns: 32 sums a thread.

    At 512 columns 8 tokens spill on sm_100.
    """
    columns = columns_of(width, 2048)
    return tile(min(16, max(4, 2048 // columns), 4096 // columns), columns, 32)


def token_tile(width: int) -> Tile:
    """Return 8 chunks of one token by up to 256 columns; the block walks the row."""
    return tile(8, columns_of(width, 256), 16)


def pieces_tile(width: int) -> Tile:
    """Return one row, up to 1024 columns."""
    return tile(1, columns_of(width, 1024), 8)


def tile(things: int, columns: int, sums: int) -> Tile:
    """Return the tile with as many warps of 32 threads as leave each thread `sums` of its numbers."""
    return Tile(things, columns, max(1, things * columns // (32 * sums)))


def columns_of(width: int, most: int) -> int:
    """Return the power of two that holds the width, between 16 and `most`."""
    return min(max(triton.next_power_of_2(width), 16), most)
