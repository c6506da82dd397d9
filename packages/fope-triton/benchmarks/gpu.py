"""Rotation, attention and decoding on a GPU beside their peers, with bytes and FLOPs against the machine's
limit.

    python benchmarks/gpu.py [--only rotation attention decode] [--repeats 50] [--json FILE]

Rotation of q and k: against `torch.clone` of both, which is the limit; transformers' function under
`torch.compile` and Liger's kernel, whose tables all heads share; flash-attn's. Attention: this package's
kernel, rotation included, against the same kernel behind a separate rotation, SDPA, FlexAttention and
FlashAttention-2; forward as in inference. Decoding: bytes a second of keys and values. A peer that is not
installed is left out by name. All in one process and in turn; a time is the median over the repeats with its
interquartile range.
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

SHAPES = ((8, 8, 64), (32, 8, 128), (64, 4, 128))  # query heads, KV heads, head_dim
KEPT = {64: 16, 128: 31}  # pairs of a model trained at 512 positions, θ = 10,000
BATCHES, LENGTHS = (1, 8), (2_048, 8_192, 131_072)
BF16, FP32 = 2, 4  # bytes
MOST_ELEMENTS = 2**31  # of q; larger inputs are left out by name
Call = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """One call: seconds, and what it moved or computed."""

    what: str
    shape: str
    peer: str
    seconds: float
    iqr: float
    bytes: int = 0
    flops: int = 0

    def __str__(self) -> str:
        rate = f"{self.bytes / self.seconds / 1e9:9.0f} GB/s" if self.bytes else ""
        rate = f"{self.flops / self.seconds / 1e12:9.1f} TFLOP/s" if self.flops else rate
        return (
            f"{self.what:<10} {self.shape:<26} {self.peer:<28} {self.seconds * 1e6:10.1f} µs "
            f"± {self.iqr * 1e6:7.1f} {rate}"
        )


def rotation_bytes(batch: int, length: int, query_heads: int, heads: int, head_dim: int, kept: int) -> int:
    """q and k read and written in bfloat16; two float32 tables a KV head, shared by the batch."""
    tensors = 2 * batch * length * (query_heads + heads) * head_dim * BF16
    return tensors + 2 * heads * length * kept * FP32


def attention_flops(batch: int, length: int, query_heads: int, head_dim: int, backward: bool) -> int:
    """Causal: half the scores. Two products forward, five backward; a multiplication and an addition each."""
    products = 5 if backward else 2
    return products * 2 * batch * query_heads * length**2 * head_dim // 2


def decode_bytes(batch: int, length: int, heads: int, head_dim: int) -> int:
    """Each key and value once, in bfloat16."""
    return 2 * batch * length * heads * head_dim * BF16


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 if there is no GPU."""
    options = parse(arguments)
    if not torch.cuda.is_available():
        print(
            "benchmarks/gpu.py needs a CUDA GPU; torch sees none here. Nothing was measured.", file=sys.stderr
        )
        return 2
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, bfloat16, {options.repeats} repeats")
    measured: list[Measured] = []
    for what in options.only:
        for row in MEASUREMENTS[what](options.repeats):
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


def rotation(repeats: int) -> Iterable[Measured]:
    """q and k of one layer, tables at hand."""
    from fope_triton import fope_rotate

    for batch, length, (query_heads, heads, head_dim) in itertools.product(BATCHES, LENGTHS, SHAPES):
        shape = f"B{batch} T{length} {query_heads}/{heads}x{head_dim}"
        if too_large(batch * length * query_heads * head_dim, shape):
            continue
        kept = KEPT[head_dim]
        q, k = normal(batch * length, query_heads, head_dim), normal(batch * length, heads, head_dim)
        cos, sin = tables(heads, length, kept)
        at = torch.arange(length, device="cuda").repeat(batch)
        calls: dict[str, Call] = {
            "clone (limit)": lambda q=q, k=k: (q.clone(), k.clone()),
            "fope_rotate": lambda q=q, k=k, c=cos, s=sin, at=at: fope_rotate(q, k, c, s, at),
            "fope_rotate in place, folded": lambda q=q, k=k, c=cos, s=sin, at=at: fope_rotate(
                q, k, c, s, at, zero_sin=0.0, inplace=True
            ),
        }
        by_head = [x.view(batch, length, -1, head_dim).transpose(1, 2) for x in (q, k)]
        calls |= rotation_peers(*by_head, length) | released(*by_head, heads, kept)
        moved = rotation_bytes(batch, length, query_heads, heads, head_dim, kept)
        kept_only = rotation_bytes(batch, length, query_heads, heads, 2 * kept, kept)
        for peer, (seconds, iqr) in interleaved(calls, repeats).items():
            bytes_ = kept_only if "folded" in peer else moved
            yield Measured("rotation", shape, peer, seconds, iqr, bytes=bytes_)


def rotation_peers(q: Tensor, k: Tensor, length: int) -> dict[str, Call]:
    """The peers that are installed; q, k [B, heads, T, head_dim]. Their tables are one for all heads."""
    head_dim = q.shape[-1]
    cos, sin = (x.to(q.dtype) for x in tables(1, length, head_dim // 2))
    wide = [torch.cat([x, x], dim=-1) for x in (cos, sin)]  # [1, T, head_dim]
    calls: dict[str, Call] = {}
    if llama := installed("transformers.models.llama.modeling_llama"):
        compiled = torch.compile(llama.apply_rotary_pos_emb)
        calls["HF, torch.compile"] = lambda: compiled(q, k, *wide)
    if liger := installed("liger_kernel.ops.rope"):
        # It writes in place, and so its time has no copy: it moves the bytes of q and k as the others do.
        a, b = q.clone(), k.clone()
        calls["Liger"] = lambda: liger.LigerRopeFunction.apply(a, b, *wide)
    if flash := installed("flash_attn.layers.rotary"):
        turned = [x.transpose(1, 2) for x in (q, k)]
        calls["flash-attn"] = lambda: [flash.apply_rotary_emb(x, cos[0], sin[0]) for x in turned]
    return calls


def released(q: Tensor, k: Tensor, heads: int, kept: int) -> dict[str, Call]:
    """The released code's einsums on every call, where `fope` is installed and query heads are KV heads."""
    olmo = installed("fope.compat.olmo")
    if not olmo or q.shape[1] != heads or q.numel() > 2**27:  # its basis is as large as q, in float32, twice
        return {}
    frequencies, coef = torch.logspace(0, -2, kept, device="cuda"), factors(heads, kept)[1]
    at = torch.arange(q.shape[2], device="cuda")
    return {"released einsum": lambda: [olmo.released_rotation(x, at, frequencies, *coef) for x in (q, k)]}


def attention(repeats: int) -> Iterable[Measured]:
    """Causal attention of one layer, forward and backward, its rotation included."""
    for batch, length, (query_heads, heads, head_dim) in itertools.product(BATCHES, LENGTHS[:2], SHAPES):
        shape = f"B{batch} T{length} {query_heads}/{heads}x{head_dim}"
        # In memory as a projection writes them, so that no peer has to copy them first.
        q, k, v = (
            normal(batch, length, count, head_dim).transpose(1, 2).requires_grad_()
            for count in (query_heads, heads, heads)
        )
        grad = torch.randn_like(q)
        forwards = attention_peers(q, k, v, *tables(heads, length, KEPT[head_dim]))
        for backward in (False, True):
            calls: dict[str, Call] = {}
            for peer, forward in forwards.items():
                calls[peer] = backward_of(forward, (q, k, v), grad) if backward else without_gradient(forward)
            what, flops = (
                "backward" if backward else "forward",
                attention_flops(batch, length, query_heads, head_dim, backward),
            )
            for peer, (seconds, iqr) in interleaved(calls, repeats).items():
                yield Measured(what, shape, peer, seconds, iqr, flops=flops)


def attention_peers(
    q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """Attention after rotation, by each way that is installed; q, k, v [B, heads, T, head_dim]."""
    from fope_triton import fope_attention

    unit, nothing = torch.ones_like(cos[..., :0]), torch.zeros_like(sin[..., :0])
    at = torch.arange(q.shape[2], device="cuda").repeat(q.shape[0])

    def rotated() -> list[Tensor]:
        from fope_triton import fope_rotate

        packed = [x.transpose(1, 2).flatten(0, 1) for x in (q, k)]
        return [
            x.view(q.shape[0], q.shape[2], -1, q.shape[3]).transpose(1, 2)
            for x in fope_rotate(*packed, cos, sin, at)
        ]

    calls: dict[str, Callable[[], Tensor]] = {
        "fope_attention": lambda: fope_attention(q, k, v, cos, sin, causal=True),
        "the kernel without rotation": lambda: fope_attention(
            q, k, v, unit, nothing, causal=True, zero_sin=0.0
        ),
        "rotate + SDPA": lambda: F.scaled_dot_product_attention(
            *rotated(), v, is_causal=True, enable_gqa=True
        ),
    }
    if flex := installed("torch.nn.attention.flex_attention"):
        mask = flex.create_block_mask(lambda b, h, i, j: i >= j, None, None, q.shape[2], q.shape[2])
        compiled = torch.compile(flex.flex_attention)
        calls["rotate + FlexAttention"] = lambda: compiled(*rotated(), v, block_mask=mask, enable_gqa=True)
    if flash := installed("flash_attn"):
        calls["rotate + FlashAttention-2"] = lambda: flash.flash_attn_func(
            *(x.transpose(1, 2) for x in (*rotated(), v)), causal=True
        ).transpose(1, 2)
    return calls


def without_gradient(forward: Callable[[], Tensor]) -> Call:
    """A forward pass as in inference, where the kernel turns queries in its prologue and keeps nothing."""
    return torch.no_grad()(forward)


def backward_of(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...], grad: Tensor) -> Call:
    """Only the backward pass of a forward pass that has been made."""
    out = forward()
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)


@torch.inference_mode()
def decode(repeats: int) -> Iterable[Measured]:
    """One token a sequence behind a long cache, in pages of 64."""
    from fope_triton import fope_decode

    for batch, length, (query_heads, heads, head_dim) in itertools.product(BATCHES, LENGTHS[1:], SHAPES):
        shape = f"B{batch} T{length} {query_heads}/{heads}x{head_dim}"
        if too_large(batch * length * heads * head_dim, shape):
            continue
        q = normal(batch, query_heads, head_dim)
        blocks = batch * length // 64
        k, v = (normal(blocks, 64, heads, head_dim) for _ in "kv")
        table = torch.randperm(blocks, device="cuda").view(batch, -1).int()
        lens = torch.full((batch,), length, dtype=torch.int32, device="cuda")
        kept = KEPT[head_dim]
        by_table = (*tables(heads, length, kept), lens)
        by_factors = (*factors(heads, kept), lens)
        calls: dict[str, Call] = {
            f"{name}, {'rotated' if turned else 'unrotated'} keys": (
                lambda q=q, k=k, v=v, rows=rows, turned=turned, table=table: fope_decode(
                    q, k, v, *rows, rotated_cache=turned, block_table=table
                )
            )
            for name, rows in (("tables", by_table), ("factors", by_factors))
            for turned in (True, False)
        }
        moved = decode_bytes(batch, length, heads, head_dim)
        calls["clone of K (limit)"] = lambda k=k: k.clone()  # reads half of the cache and writes as much
        for peer, (seconds, iqr) in interleaved(calls, repeats).items():
            yield Measured("decode", shape, peer, seconds, iqr, bytes=moved)


MEASUREMENTS: dict[str, Callable[[int], Iterable[Measured]]] = {
    "rotation": rotation,
    "attention": attention,
    "decode": decode,
}


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


def too_large(elements: int, shape: str) -> bool:
    """Whether a tensor would have more elements than is measured; says so."""
    if elements >= MOST_ELEMENTS:
        print(f"{shape}: left out, {elements:,} elements")
    return elements >= MOST_ELEMENTS


def installed(name: str) -> Any:
    """Return the module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def normal(*shape: int) -> Tensor:
    """Random numbers in bfloat16."""
    return torch.randn(*shape, dtype=torch.bfloat16, device="cuda")


def tables(heads: int, length: int, kept: int) -> tuple[Tensor, Tensor]:
    """cos and sin [heads, length, kept]; a time does not depend on what is in them."""
    angles = torch.arange(length, device="cuda")[:, None] * torch.logspace(0, -2, kept, device="cuda")
    return angles.cos().expand(heads, -1, -1).contiguous(), angles.sin().expand(heads, -1, -1).contiguous()


def factors(heads: int, kept: int) -> tuple[Tensor, Tensor]:
    """Factored basis of `kept` frequencies, and coefficients near the identity."""
    cos, sin = tables(2, 1024, kept)
    return torch.stack([cos, sin], dim=-1), torch.eye(kept, device="cuda").expand(
        2, heads, -1, -1
    ).contiguous()


if __name__ == "__main__":
    sys.exit(main())
