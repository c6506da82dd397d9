"""The types that the kernels' arguments have at a launch, for compiling without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memoryformer_triton.tiles import CompileSpec, Tile

TYPES = {
    **dict.fromkeys(("weights", "scales", "q", "partial"), "*fp32"),
    **dict.fromkeys(("starts", "pieces", "ends", "slots", "rows"), "*i32"),
    "order": "*i64",
    "inverse": "fp32",
}
TABLES = ("tables", "grad")
INPUTS = ("z", "dz", "y", "dy", "bias")


def compile_spec(
    name: str,
    fn: Any,
    constexprs: Mapping[str, Any],
    tile: Tile,
    types: Mapping[str, str],
    target: str,
    dtype: str,
    width: int,
) -> CompileSpec:
    """Return how `fn` is compiled on `target` for tables of `dtype`; arguments have types by their names.

    `types` are those of this one launch.
    """
    arguments = [argument for argument in fn.arg_names if argument not in constexprs]
    model = "bf16" if dtype == "i8" else dtype
    given = {argument: TYPES.get(argument, "i32") for argument in arguments}
    given |= {argument: f"*{model}" for argument in arguments if argument in INPUTS}
    given |= {argument: f"*{dtype}" for argument in arguments if argument in TABLES}
    given |= {argument: types[argument] for argument in arguments if argument in types}
    # Tensors begin at multiples of 16 bytes; numbers of tokens and chunks may be anything.
    aligned = tuple(argument for argument in arguments if given[argument].startswith("*"))
    return CompileSpec(name, fn, given, constexprs, aligned, tile.options, target, dtype, width)
