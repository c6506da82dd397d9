"""The types that the kernels' arguments have at a launch, for compiling without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fope_triton.tiles import CompileSpec

TYPES = {
    **dict.fromkeys(("cos", "sin", "dc", "ds", "partial", "lse", "delta"), "*fp32"),
    **dict.fromkeys(("cache_lens", "block_table", "cu_seqlens", "blocks"), "*i32"),
    **dict.fromkeys(("positions", "slots"), "*i64"),
    **dict.fromkeys(("zero_sin", "sign", "scale", "scale_log2"), "fp32"),
}
MODEL = ("q", "k", "v", "k_cache", "v_cache", "out", "q_out", "k_out", "dq", "dk", "dv", "dout")
# Rows of R numbers begin anywhere; all else is a multiple of 16, as the launcher finds it to be.
UNALIGNED = ("stride_cb", "stride_sb", "stride_ch", "stride_ct", "stride_sh", "stride_st", "stride_tb")
# float16 has the tiles of bfloat16. A slow test compiles it; the check at every commit does not do it twice.
COMPILED = ("bf16", "fp32")


def compile_spec(
    name: str,
    fn: Any,
    constexprs: Mapping[str, Any],
    options: Mapping[str, Any],
    dtype: str,
    head_dim: int,
    target: str,
) -> CompileSpec:
    """Return how `fn` is compiled for tensors of `dtype` on `target`; arguments have types by their names."""
    arguments = [argument for argument in fn.arg_names if argument not in constexprs]
    types = {argument: TYPES.get(argument, "i32") for argument in arguments}
    types |= {argument: f"*{dtype}" for argument in arguments if argument in MODEL}
    aligned = tuple(
        argument
        for argument in arguments
        if types[argument].startswith("*") or (argument.startswith("stride") and argument not in UNALIGNED)
    )
    return CompileSpec(name, fn, types, constexprs, aligned, options, target, dtype, head_dim)
