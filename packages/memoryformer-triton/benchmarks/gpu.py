"""The look-up on a GPU beside its peers, with the bytes it gathers against the machine's limit.

    python benchmarks/gpu.py [--only forward backward] [--repeats 50] [--json FILE]

Forward: one layer of width d = h with bfloat16 and int8 tables, against `nn.Linear` (cuBLAS), the same
look-up by `F.embedding_bag` behind a hash in PyTorch, FBGEMM's table-batched embedding, and `torch.clone` of
half as many bytes as are gathered, read and written: the limit without reuse in caches. Backward:
deterministic, by atomics, and of the peers. On uniform codes, and on skewed ones, where two in three tokens
hit one row of each table. A peer that is not installed is left out. All in one process and in turn; a time is
the median over the repeats with its interquartile range.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTHS, TOKENS = (512, 1024, 4096), (1, 16, 256, 16_384)
TAU = 8
BF16 = 2  # bytes
MOST_COPIED = 2**33  # bytes; where more are gathered, no copy shows the limit
Call = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """One call: seconds, and the bytes of rows that it gathers."""

    what: str
    shape: str
    peer: str
    seconds: float
    iqr: float
    bytes: int = 0

    def __str__(self) -> str:
        rate = f"{self.bytes / self.seconds / 1e9:9.0f} GB/s" if self.bytes else ""
        return (
            f"{self.what:<9} {self.shape:<24} {self.peer:<28} {self.seconds * 1e6:10.1f} µs "
            f"± {self.iqr * 1e6:7.1f} {rate}"
        )


def gathered_bytes(tokens: int, width: int, itemsize: int) -> int:
    """One row of `width` numbers a chunk of `TAU`, for each token."""
    return tokens * (width // TAU) * width * itemsize


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 if there is no GPU."""
    options = parse(arguments)
    if not torch.cuda.is_available():
        print(
            "benchmarks/gpu.py needs a CUDA GPU; torch sees none here. Nothing was measured.", file=sys.stderr
        )
        return 2
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, tau {TAU}, {options.repeats} repeats")
    measured: list[Measured] = []
    for what, tokens, width, skewed in itertools.product(options.only, TOKENS, WIDTHS, (False, True)):
        for row in MEASUREMENTS[what](tokens, width, skewed, options.repeats):
            print(row, flush=True)
            measured.append(row)
    if options.json:
        content = {"device": name, "torch": torch.__version__, "rows": [asdict(row) for row in measured]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS))
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.repeats < 4:
        parser.error(f"--repeats is {options.repeats}; quartiles need at least 4")
    return options


def inputs(tokens: int, width: int, skewed: bool) -> tuple[Tensor, Tensor]:
    """z [N, K, TAU] and tables [K, 2^TAU, h], in bfloat16; skewed z is positive in two of three tokens."""
    z = torch.randn(tokens, width // TAU, TAU, device="cuda", dtype=torch.bfloat16)
    if skewed:
        z = torch.where(torch.rand(tokens, 1, 1, device="cuda") < 2 / 3, z.abs(), z)
    return z, torch.randn(width // TAU, 2**TAU, width, device="cuda", dtype=torch.bfloat16)


def hash_by_torch(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the tables one after the other, and weights, in PyTorch: what `F.embedding_bag` needs."""
    place = 2 ** torch.arange(TAU - 1, -1, -1, device=z.device)
    first = 2**TAU * torch.arange(z.shape[1], device=z.device)
    size = z.float().abs()
    weights = size.sum(-1) / (1 + torch.exp(-2 * size)).prod(-1)
    return ((z >= 0) * place).sum(-1) + first, weights


def by_embedding_bag(z: Tensor, tables: Tensor) -> Tensor:
    """The look-up by PyTorch's kernel."""
    rows, weights = hash_by_torch(z)
    return F.embedding_bag(
        rows, tables.flatten(0, 1), per_sample_weights=weights.to(tables.dtype), mode="sum"
    )


def fbgemm_peer(z: Tensor, tables: Tensor) -> dict[str, Call]:
    """FBGEMM's table-batched embedding with the same tables in half precision, where it is installed."""
    module = installed("fbgemm_gpu.split_table_batched_embeddings_ops_inference")
    if module is None:
        return {}
    configs = importlib.import_module("fbgemm_gpu.split_embedding_configs")
    rows, width = tables.flatten(0, 1).shape
    half = configs.SparseType.FP16
    spec = ("tables", rows, width, half, module.EmbeddingLocation.DEVICE)
    bags = module.IntNBitTableBatchedEmbeddingBagsCodegen([spec], device="cuda", output_dtype=half)
    bags.fill_random_weights()  # a time does not depend on what is in them
    offsets = torch.arange(0, z.shape[0] * z.shape[1] + 1, z.shape[1], dtype=torch.int32, device="cuda")

    def look_up() -> Tensor:
        at, weights = hash_by_torch(z)
        return bags(at.flatten().int(), offsets, weights.flatten())

    return {"hash + FBGEMM": look_up}


@torch.inference_mode()
def forward(tokens: int, width: int, skewed: bool, repeats: int) -> Iterable[Measured]:
    """One layer, no gradients."""
    from memoryformer_triton import memory_lookup

    z, tables = inputs(tokens, width, skewed)
    scales = tables.float().abs().amax(-1) / 127
    int8 = (tables / scales[..., None]).round().to(torch.int8)
    weight, flat = torch.randn(width, width, device="cuda", dtype=z.dtype), z.flatten(1)
    moved = gathered_bytes(tokens, width, BF16)
    calls: dict[str, Call] = {
        "cuBLAS linear": lambda: F.linear(flat, weight),
        "memory_lookup": lambda: memory_lookup(z, tables),
        "memory_lookup int8": lambda: memory_lookup(z, int8, scales=scales),
        "hash + embedding_bag": lambda: by_embedding_bag(z, tables),
    }
    calls |= fbgemm_peer(z, tables)
    if moved <= MOST_COPIED:
        calls["clone (limit)"] = torch.empty(moved // 2, dtype=torch.int8, device="cuda").clone
    for peer, (seconds, iqr) in interleaved(calls, repeats).items():
        bytes_ = {"cuBLAS linear": 0, "memory_lookup int8": moved // 2}.get(peer, moved)
        yield Measured("forward", shape_of(tokens, width, skewed), peer, seconds, iqr, bytes_)


def backward(tokens: int, width: int, skewed: bool, repeats: int) -> Iterable[Measured]:
    """Gradients of the input and of the tables or weights."""
    from memoryformer_triton import memory_lookup

    z, tables = (x.requires_grad_() for x in inputs(tokens, width, skewed))
    x = torch.randn(tokens, width, device="cuda", dtype=z.dtype, requires_grad=True)
    weight = torch.randn(width, width, device="cuda", dtype=z.dtype, requires_grad=True)
    grad = torch.randn(tokens, width, device="cuda", dtype=z.dtype)
    calls = {
        "cuBLAS linear": backward_of(F.linear(x, weight), (x, weight), grad),
        "deterministic": backward_of(memory_lookup(z, tables, deterministic=True), (z, tables), grad),
        "atomic where few": backward_of(memory_lookup(z, tables, deterministic=False), (z, tables), grad),
        "hash + embedding_bag": backward_of(by_embedding_bag(z, tables), (z, tables), grad),
    }
    for peer, (seconds, iqr) in interleaved(calls, repeats).items():
        yield Measured("backward", shape_of(tokens, width, skewed), peer, seconds, iqr)


def backward_of(out: Tensor, leaves: tuple[Tensor, ...], grad: Tensor) -> Call:
    """Only the backward pass of a forward pass that has been made."""
    return lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)


MEASUREMENTS: dict[str, Callable[[int, int, bool, int], Iterable[Measured]]] = {
    "forward": forward,
    "backward": backward,
}


def shape_of(tokens: int, width: int, skewed: bool) -> str:
    """The case in words."""
    return f"N{tokens} d{width} {'skewed' if skewed else 'uniform'}"


def interleaved(calls: dict[str, Call], repeats: int) -> dict[str, tuple[float, float]]:
    """Median and interquartile range of each call's seconds; called in turn, after two rounds of warming."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 2):
        for name, call in calls.items():
            taken = timed(call)
            if round_ >= 2:
                seconds[name].append(taken)
    return {name: spread(taken) for name, taken in seconds.items()}


def spread(numbers: list[float]) -> tuple[float, float]:
    """Median and interquartile range."""
    low, middle, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return middle, high - low


def timed(call: Call) -> float:
    """Seconds on the GPU between two events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def installed(name: str) -> Any:
    """Return the module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


if __name__ == "__main__":
    sys.exit(main())
