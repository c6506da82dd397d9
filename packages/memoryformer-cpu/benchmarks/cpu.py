"""The look-up beside the dense layer it replaces and its peers, in one process, with cold caches.

Every call gets a fresh random input, the layers in rotation exceed the last cache, and the arms take turns.
A turn is a few calls in a row (one for many tokens), as a model calls one layer after the other. Times are
those of the thread (of the clock for more than one thread): the lower third of the turns, which leaves out
what other programs on the machine took, and the median.

    python benchmarks/cpu.py --widths 768,2048 --tokens 1,8,64,1024 --json cpu.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import memoryformer_cpu
from memoryformer_cpu import memory_lookup, raw

TAU, ROWS = 8, 256
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
LARGEST_OFFICIAL = 1 << 28  # bytes of the rows that the authors' formulation copies


@dataclass
class Row:
    """What one arm took for `tokens` tokens at a width, in microseconds."""

    width: int
    tokens: int
    arm: str
    times: list[float] = field(repr=False)
    table_bytes: int | None = None  # of the rows that a call reads

    @property
    def time(self) -> float:
        return lower_third(self.times)

    @property
    def bandwidth(self) -> float | None:
        return None if self.table_bytes is None else self.table_bytes / self.time * 1e6


def lower_third(times: list[float]) -> float:
    return sorted(times)[len(times) // 3]


def last_cache() -> int:
    """Bytes of the last level of cache, 32 MiB where the system does not say."""
    return int(CACHE.read_text().strip().removesuffix("K")) * 1024 if CACHE.exists() else 32 << 20


def copies(bytes_each: int, cache: int) -> int:
    """How many layers take turns, so that none finds itself in the cache."""
    return max(2, -(-2 * cache // bytes_each))


def copy_bandwidth(clock: Callable[[], float]) -> float:
    """Bytes a second, read and written, of a copy of 256 MiB."""
    a, b = torch.ones(1 << 26), torch.empty(1 << 26)
    times = []
    for _ in range(5):
        start = clock()
        b.copy_(a)
        times.append(clock() - start)
    return 2 * a.nbytes / min(times)


def torch_hash(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the flattened tables, and weights."""
    codes = ((z >= 0) * 2 ** torch.arange(TAU - 1, -1, -1)).sum(-1) + torch.arange(z.shape[1]) * ROWS
    a = z.abs()
    return codes, a.sum(-1) / (1 + torch.exp(-2 * a)).prod(-1)


def bag(z: Tensor, flat: Tensor) -> Tensor:
    codes, weights = torch_hash(z)
    return F.embedding_bag(codes, flat, per_sample_weights=weights, mode="sum")


def official(z: Tensor, flat: Tensor) -> Tensor:
    """The authors' torch path restated: codes summed as floats, p over both signs, every row copied."""
    bits = (z >= 0).to(z.dtype)
    codes = (bits * 2.0 ** torch.arange(TAU - 1, -1, -1)).sum(-1).long() + torch.arange(z.shape[1]) * ROWS
    magnitude = z.abs()
    p = torch.exp(magnitude.sum(-1)) / (torch.exp(z) + torch.exp(-z)).prod(-1)
    return (flat[codes] * (p * magnitude.sum(-1))[..., None]).sum(1)


def quantized_bag(codes: Tensor, weights: Tensor, packed: Tensor) -> Tensor:
    """Torch's bag of int8 rows; the hash is done before and not timed."""
    starts = torch.arange(0, codes.numel(), codes.shape[1])
    return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        packed, codes.flatten(), starts, mode=0, per_sample_weights=weights.flatten()
    )


def int8_linear(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear}, dtype=torch.qint8)


Call = tuple[Callable[..., object], tuple[object, ...]]  # what is timed, its arguments made before
Arm = tuple[str, Callable[[Tensor], Call], int]  # name, input [N, width] to call, bytes of a number read or 0


def forward_arms(width: int, tokens: int, cache: int) -> list[Arm]:
    """The arms at a width."""
    chunks = width // TAU
    numbers = chunks * ROWS * width
    dense = [nn.Linear(width, width, bias=False) for _ in range(copies(4 * width * width, cache))]
    half = [layer.weight.detach().bfloat16() for layer in dense + dense]
    small = [int8_linear(layer) for layer in dense * 4]
    single = [torch.randn(chunks, ROWS, width) for _ in range(copies(4 * numbers, cache))]
    bfloat = [single[0].bfloat16() + i for i in range(copies(2 * numbers, cache))]
    scales = single[0].abs().amax(-1) / 127
    int8 = [(single[0] / scales[..., None]).round().to(torch.int8) for _ in range(copies(numbers, cache))]
    packed = [torch.ops.quantized.embedding_bag_byte_prepack(tables.flatten(0, 1)) for tables in single]

    def over(layers: list, call: Callable[..., object], split: bool = True) -> Callable[[Tensor], Call]:
        turn = itertools.cycle(layers)
        return lambda x: (call, (x.view(len(x), chunks, TAU) if split else x, next(turn)))

    def over_packed(x: Tensor) -> Call:
        return quantized_bag, (*torch_hash(x.view(len(x), chunks, TAU)), next(turn))

    turn = itertools.cycle(packed)
    arms: list[Arm] = [
        ("Linear fp32", over(dense, lambda x, layer: layer(x), split=False), 0),
        ("Linear bf16", over(half, lambda x, weight: F.linear(x.bfloat16(), weight), split=False), 0),
        ("Linear int8 dynamic", over(small, lambda x, layer: layer(x), split=False), 0),
        ("embedding_bag fp32 + torch hash", over(single, lambda z, t: bag(z, t.flatten(0, 1))), 4),
        ("official formulation fp32", over(single, lambda z, t: official(z, t.flatten(0, 1))), 4),
        ("quantized byte bag, no hash", over_packed, 1),
        ("look-up fp32", over(single, raw.output), 4),
        ("look-up bf16", over(bfloat, raw.output), 2),
        ("look-up int8", over(int8, lambda z, t: raw.output(z, t, None, scales)), 1),
    ]
    if 4 * tokens * chunks * width > LARGEST_OFFICIAL:
        arms = [arm for arm in arms if not arm[0].startswith("official")]
    return arms


def training_arms(width: int) -> list[Arm]:
    """Forward and backward, with gradients for input and tables."""
    tables = torch.randn(width // TAU, ROWS, width, requires_grad=True)

    def step(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Call]:
        def both(z: Tensor, g: Tensor) -> object:
            return torch.autograd.grad(function(z, tables), (z, tables), g)

        return lambda x: (both, (x.view(len(x), -1, TAU).requires_grad_(), torch.randn_like(x)))

    return [
        ("training: embedding_bag", step(lambda z, t: bag(z, t.flatten(0, 1))), 0),
        ("training: look-up", step(memory_lookup), 0),
    ]


def measure(arms: list[Arm], width: int, tokens: int, repeats: int, clock: Callable[[], float]) -> list[Row]:
    """Each arm in its turn, `repeats` times after three that do not count."""
    read = tokens * (width // TAU) * width
    rows = [Row(width, tokens, name, [], size * read or None) for name, _, size in arms]
    count = max(1, min(16, 128 // tokens))
    for i in range(repeats + 3):
        for row, (_, prepare, _) in zip(rows, arms, strict=True):
            calls = [prepare(torch.randn(tokens, width)) for _ in range(count)]
            start = clock()
            for call, arguments in calls:
                call(*arguments)
            if i >= 3:
                row.times.append((clock() - start) / count * 1e6)
    return rows


def table(rows: list[Row], bandwidth: float) -> str:
    """A line an arm: time, how many times faster than the first, bytes a second, their part of a copy's."""
    lines = []
    for row in rows:
        first = rows[0]
        ratios = f"{first.time / row.time:6.2f}x {median(first) / median(row):6.2f}x"
        rate = (
            ""
            if row.bandwidth is None
            else f"{row.bandwidth / 1e9:7.1f} GB/s {row.bandwidth / bandwidth:5.0%}"
        )
        lines.append(f"{row.width:5} {row.tokens:5}  {row.arm:32} {row.time:11.1f} us {ratios} {rate}")
    return "\n".join(lines)


def median(row: Row) -> float:
    return statistics.median(row.times)


def where_dense_wins(rows: list[Row], width: int, arm: str, dense: str = "Linear fp32") -> str:
    """The least number of tokens measured from which on the dense layer is faster."""
    times = {(row.tokens, row.arm): row.time for row in rows if row.width == width}
    tokens = sorted({n for n, name in times if name == arm})
    last_won = max((n for n in tokens if times[n, arm] <= times[n, dense]), default=None)
    later = [n for n in tokens if last_won is None or n > last_won]
    what = f"from {later[0]} tokens on" if later else f"at no size up to {tokens[-1]}"
    return f"{dense} is faster than {arm} at width {width}: {what}"


def repeats_for(tokens: int, wanted: int) -> int:
    return max(5, min(wanted, wanted * 8 // tokens)) if tokens > 8 else wanted


def numbers(text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers above 0, comma between them; got {text!r}")
    return values


def widths(text: str) -> list[int]:
    values = numbers(text)
    if any(value % TAU for value in values):
        raise argparse.ArgumentTypeError(f"widths are multiples of {TAU}; got {text!r}")
    return values


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time the look-up beside the dense layer and its peers.")
    parser.add_argument("--widths", type=widths, default=[768, 2048], help="d = h, comma between them")
    parser.add_argument("--tokens", type=numbers, default=[1, 8, 64, 1024], help="N, comma between them")
    parser.add_argument("--training-tokens", type=numbers, default=[1024], help="N of forward and backward")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=60, help="of each arm, fewer for many tokens")
    parser.add_argument("--json", type=Path, help="write every time to this file")
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.repeats < 3:
        parser.error("--threads is 1 or more, --repeats 3 or more")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    cache, bandwidth = last_cache(), copy_bandwidth(clock)
    print(
        f"{platform.machine()}, {memoryformer_cpu.instruction_set()}, torch {torch.__version__}, "
        f"{options.threads} thread(s), last cache {cache >> 20} MiB, copy {bandwidth / 1e9:.1f} GB/s"
    )
    print(
        "width     N  arm                             lower third     ratio  (medians)  rows read, of a copy"
    )
    rows: list[Row] = []
    for width in options.widths:
        for tokens in options.tokens:
            with torch.no_grad():
                arms = forward_arms(width, tokens, cache)
                rows += (found := measure(arms, width, tokens, repeats_for(tokens, options.repeats), clock))
            print(table(found, bandwidth), flush=True)
        for tokens in options.training_tokens:
            found = measure(training_arms(width), width, tokens, 5, clock)
            rows += found
            print(table(found, bandwidth), flush=True)
    for width in options.widths:
        for dtype in ("fp32", "bf16", "int8"):
            print(where_dense_wins(rows, width, f"look-up {dtype}"))
        print(where_dense_wins(rows, width, "look-up int8", "Linear int8 dynamic"))
    if options.json:
        facts = {"copy_bandwidth": bandwidth, "instruction_set": memoryformer_cpu.instruction_set()}
        options.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
