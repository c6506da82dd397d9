"""Each kernel as its launcher compiles it: for the check of every commit, and for `aot_report`."""

from __future__ import annotations

import itertools

import triton
import triton.language as tl

from memoryformer_triton.gather import hash_lookup, lookup
from memoryformer_triton.hashing import hash_chunks, input_grad, log_of
from memoryformer_triton.signatures import compile_spec
from memoryformer_triton.sorted_grad import add_pieces, table_grad
from memoryformer_triton.tiles import (
    CHUNKS,
    TARGETS,
    CompileSpec,
    lookup_tile,
    pieces_tile,
    small_lookup_tile,
    sorted_tile,
    token_tile,
)
from memoryformer_triton.token_grad import token_grad

# float16 has the tiles of bfloat16. A slow test compiles it; the check at every commit does not do it twice.
COMPILED = ("bf16", "fp32", "i8")
# One width for each number of columns that a block of `table_grad` may have.
WIDTHS = (512, 1024, 3072)
TAU = 8


def lookup_specs(target: str, dtype: str, width: int, tau: int) -> list[CompileSpec]:
    """Return the look-ups in tables of `dtype`, with a bias and, for int8, scales; the scaled score."""
    types = {"codes": codes_type(tau)}
    known = {"H": width, "TAU": tau, "ACC": tl.float32, "HAS_BIAS": True, "HAS_SCALES": dtype == "i8"}
    place = (types, target, dtype, width)
    tile, small = lookup_tile(width, 1 if dtype == "i8" else 2), small_lookup_tile(width)
    return [
        compile_spec(
            "lookup", lookup, {**known, "BLOCK_N": tile.things, "BLOCK_H": tile.columns}, tile, *place
        ),
        compile_spec(
            "hash_lookup",
            hash_lookup,
            {**known, "LOG": log_of(tau), "SCALED": True, "BLOCK_K": small.things, "BLOCK_H": small.columns},
            small,
            *place,
        ),
    ]


def table_grad_specs(target: str, dtype: str, width: int, tau: int) -> list[CompileSpec]:
    """Return the deterministic gradient of tables."""
    tile = sorted_tile(width)
    known = {"H": width, "TAU": tau, "ACC": tl.float32, "NEEDS_Q": True, "SPLIT": True}
    known |= {"BLOCK_N": tile.things, "BLOCK_H": tile.columns}
    return [compile_spec("table_grad", table_grad, known, tile, {}, target, dtype, width)]


def other_grad_specs(target: str, dtype: str, width: int, tau: int) -> list[CompileSpec]:
    """Return the second pass of split buckets, and the gradients token by token, which add in float32."""
    known = {"H": width, "TAU": tau, "ACC": tl.float32}
    tile, row = token_tile(width), pieces_tile(width)
    blocks = {"BLOCK_K": tile.things, "BLOCK_H": tile.columns}
    types = {"codes": codes_type(tau), "grad": "*fp32"}
    place = (target, dtype, width)
    found = [compile_spec("add_pieces", add_pieces, {**known, "BLOCK_H": row.columns}, row, {}, *place)]
    for name, adds in (("token_grad", True), ("token_grad_q", False)):
        values = {**known, **blocks, "NEEDS_Q": True, "NEEDS_TABLES": adds}
        found.append(compile_spec(name, token_grad, values, tile, types, *place))
    return found


def chunk_specs(target: str, dtype: str, width: int, tau: int) -> list[CompileSpec]:
    """Return what looks at z alone; the width is for the number of partial sums of q."""
    known = {"TAU": tau, "LOG": log_of(tau), "SCALED": True, "ACC": tl.float32, "BLOCK": CHUNKS.things}
    parts = triton.cdiv(width, sorted_tile(width).columns)
    backward = {**known, "PARTS": parts}
    place = (CHUNKS, {"codes": codes_type(tau)}, target, dtype, width)
    return [
        compile_spec("hash", hash_chunks, known, *place),
        compile_spec("input_grad", input_grad, backward, *place),
    ]


def codes_type(tau: int) -> str:
    """Return what codes are, as `backend.code_dtype` says."""
    return "*u8" if tau <= 8 else "*i32"


def kernel_specs(target: str, dtype: str, width: int, tau: int) -> list[CompileSpec]:
    """Return every kernel for tables [K, 2^tau, width] of `dtype`; for int8 those of inference."""
    found = lookup_specs(target, dtype, width, tau)
    if dtype == "i8":
        return found
    for specs_of in (table_grad_specs, other_grad_specs, chunk_specs):
        found += specs_of(target, dtype, width, tau)
    return found


def specs() -> list[CompileSpec]:
    """Return what is compiled at every commit: all kernels at one width, `table_grad` with each tile."""
    found = []
    for target, dtype in itertools.product(TARGETS, COMPILED):
        found += kernel_specs(target, dtype, 1024, TAU)
        if dtype != "i8":
            for width in WIDTHS:
                if width != 1024:
                    found += table_grad_specs(target, dtype, width, TAU)
    return found
