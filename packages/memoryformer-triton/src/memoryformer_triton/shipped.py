"""Each kernel as its launcher compiles it: for the check of every commit, and for `aot_report`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import triton
import triton.language as tl

from memoryformer_triton.gather import hash_lookup, lookup
from memoryformer_triton.hashing import hash_chunks, input_grad, log_of
from memoryformer_triton.signatures import INPUTS, compile_spec
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
# What `kernel_specs` leaves out, and a launcher may ask for: each other choice of a kernel's flags, by name.
# (Scales come with int8 and with nothing else; `token_grad_q` is `token_grad` without the tables.)
SOFTMAX, NO_BIAS, NO_Q, WHOLE = {"SCALED": False}, {"HAS_BIAS": False}, {"NEEDS_Q": False}, {"SPLIT": False}
VARIANTS: Mapping[str, Mapping[str, Mapping[str, bool]]] = {
    "lookup": {"no_bias": NO_BIAS},
    "hash_lookup": {"no_bias": NO_BIAS, "softmax": SOFTMAX, "no_bias_softmax": NO_BIAS | SOFTMAX},
    "hash": {"softmax": SOFTMAX},
    "input_grad": {"softmax": SOFTMAX},
    "table_grad": {"no_q": NO_Q, "whole": WHOLE, "whole_no_q": WHOLE | NO_Q},
    "token_grad": {"no_q": NO_Q},
}
# Tables of one dtype under activations of another: autocast, or bfloat16 or int8 tables in a float32 model.
ACTIVATIONS = {"fp32": "bf16", "bf16": "fp32", "i8": "fp32"}
MIXED = ("lookup", "hash_lookup", "table_grad", "token_grad", "token_grad_q")


def lookup_specs(target: str, dtype: str, width: int, tau: int) -> list[CompileSpec]:
    """Return the look-ups in tables of `dtype`, with a bias and, for int8, scales; the scaled score."""
    types = {"codes": codes_type(tau)}
    known = {"H": width, "TAU": tau, "ACC": tl.float32, "HAS_BIAS": True, "HAS_SCALES": dtype == "i8"}
    place = (types, target, dtype, width)
    tile, small = lookup_tile(width, dtype == "i8"), small_lookup_tile(width)
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


def variants(spec: CompileSpec) -> list[CompileSpec]:
    """Return the kernel with its other flags, and with activations of another dtype than its tables."""
    found = [
        replace(spec, name=f"{spec.name}_{name}", constexprs={**spec.constexprs, **flags})
        for name, flags in VARIANTS.get(spec.name, {}).items()
    ]
    if spec.name in MIXED:
        other = ACTIVATIONS[spec.dtype]
        types = {**spec.types, **{name: f"*{other}" for name in spec.types if name in INPUTS}}
        options = spec.options
        if spec.name == "lookup":
            options = lookup_tile(spec.head_dim, widens=spec.dtype != "fp32").options
        found.append(replace(spec, name=f"{spec.name}_of_{other}", types=types, options=options))
    return found


def specs() -> list[CompileSpec]:
    """Return what is compiled at every commit: all kernels at one width, `table_grad` with each tile.

    Each with every choice of its flags.
    """
    found = []
    for target, dtype in itertools.product(TARGETS, COMPILED):
        found += kernel_specs(target, dtype, 1024, TAU)
        if dtype != "i8":
            for width in WIDTHS:
                if width != 1024:
                    found += table_grad_specs(target, dtype, width, TAU)
    return found + [variant for spec in found for variant in variants(spec)]
