"""How fast a Memory Layer is beside the dense layer it replaces, with cold caches: `bench` (section 8.2).

A look-up reads few bytes of large tables, so that a careless loop measures the cache. Hence the protocol:
enough layers in rotation that the dense weights are twice the last cache; a fresh random input for each call,
as the same one would find its rows again; the arms in turn, so that a busy machine slows all; one thread's
CPU time; of the repeats the lower-third quantile, with the median beside it.
"""

from __future__ import annotations

import itertools
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memoryformer import backends
from memoryformer.errors import MemoryFormerError
from memoryformer.flops import table_bytes
from memoryformer.functional import hash_codes, hash_weights
from memoryformer.huge_pages import use_huge_pages_
from memoryformer.layers import MemoryLayer, check_sizes
from memoryformer.machine import free_bytes
from memoryformer.quantization import QuantizedMemoryLayer

BASE = "nn.Linear float32"
OFFICIAL = "official formulation float32"
CACHE_BYTES = 2**25  # where the machine does not say
LARGEST_GATHER = 2**28  # bytes that the official formulation may put side by side; it is hopeless long before
WARM_UP, LEAST_REPEATS = 3, 9

Call = Callable[[Tensor], object]


@dataclass(frozen=True)
class Timing:
    """One arm at one width (in = out) and batch size.

    `seconds` is the lower-third quantile and `median` the median of the repeats, `speedup` the base arm's
    seconds over these, `bytes_read` what a call reads of weights or table rows, `of_copy` the rate of that as
    a share of the machine's copy bandwidth (above 1: from a cache).
    """

    width: int
    tokens: int
    arm: str
    seconds: float
    median: float
    speedup: float
    bytes_read: int
    of_copy: float


@dataclass(frozen=True)
class Report:
    """What `bench` measured, and where."""

    environment: dict[str, Any]
    copy_bandwidth: float
    timings: tuple[Timing, ...]

    def dense_wins_from(self, width: int, arm: str) -> int | None:
        """The smallest measured batch size from which on nn.Linear float32 is faster than `arm`."""
        slower = None
        for timing in sorted(self.timings, key=lambda timing: -timing.tokens):
            if (timing.width, timing.arm) == (width, arm):
                if timing.speedup >= 1:
                    break
                slower = timing.tokens
        return slower


@dataclass(frozen=True)
class _Arm:
    """`calls` are the layers in rotation, `prepare` makes their input of [N, width] float32, untimed."""

    name: str
    calls: list[Call]
    prepare: Call
    bytes_read: Callable[[int], int]


def bench(
    widths: Sequence[int] = (768, 2048),
    tokens: Sequence[int] = (1, 8, 64, 1024),
    *,
    tau: int = 8,
    peers: bool = True,
    device: str = "cpu",
    threads: int = 1,
    huge_pages: bool = False,
    skewed: bool = False,
    seconds: float = 10.0,
    cache_bytes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measure Memory Layers (the kernel, and the modules) with float32, bfloat16 and int8 tables.

    nn.Linear float32 is the base of every ratio; `peers` adds nn.Linear bfloat16, its int8 dynamic
    quantisation (CPU), `F.embedding_bag` behind a hash of torch operations, the formulation of the authors'
    code, and "row sum, no hash", which adds up the same rows by torch, without weights. `huge_pages` puts all
    tables in huge pages (`use_huge_pages_`). `skewed` input is positive in two of three tokens, which so
    fetch the same row of each table; else it is normal, and the rows are uniform. Each width and batch size
    takes about `seconds`. `cache_bytes` is the last cache, asked of the machine if None. With more than one
    thread, and on GPUs, time is wall-clock time. `on_progress` gets how many pairs of width and batch size
    are done, and how many there are.

    Raises `MemoryFormerError` for sizes that cannot be, a device that is not there, and tables that the free
    memory does not hold.
    """
    _check(widths, tokens, tau, device, threads, seconds)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        clock = time.thread_time if threads == 1 and device == "cpu" else time.perf_counter
        copy = copy_bandwidth(device, clock)
        timings: list[Timing] = []
        done = 0
        for width in widths:
            arms = _arms(width, tau, device, peers, cache_bytes or _last_cache(device), huge_pages)
            for count in tokens:
                timings += _measure(arms, width, count, device, clock, seconds, copy, skewed)
                done += 1
                if on_progress is not None:
                    on_progress(done, len(widths) * len(tokens))
            del arms  # gigabytes, before those of the next width
        environment = _environment(device, threads) | {"huge_pages": huge_pages, "skewed": skewed}
        return Report(environment, copy, tuple(timings))
    finally:
        torch.set_num_threads(before)


def copy_bandwidth(device: str, clock: Callable[[], float] = time.perf_counter, size: int = 2**28) -> float:
    """Bytes per second, read and written, of a copy of `size` bytes: the lower-third quantile of 12."""
    source, target = (torch.ones(size // 4, device=device) for _ in range(2))
    times = [_timed(target.copy_, source, device, clock) for _ in range(12)]
    return 2 * size / _lower_third(times)


def _check(
    widths: Sequence[int], tokens: Sequence[int], tau: int, device: str, threads: int, seconds: float
) -> None:
    for width in widths:
        check_sizes(width, width, tau)
    if not widths or not tokens or min(tokens) < 1:
        raise MemoryFormerError(f"widths {list(widths)} and tokens {list(tokens)} must be positive numbers")
    if threads < 1:
        raise MemoryFormerError(f"threads is {threads}; it must be at least 1")
    if not seconds > 0:
        raise MemoryFormerError(f"seconds is {seconds}; it must be positive")
    if device not in ("cpu", "cuda"):
        raise MemoryFormerError(f"device is {device!r}; it may be 'cpu' or 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise MemoryFormerError("torch sees no CUDA device here")


def _arms(width: int, tau: int, device: str, peers: bool, cache: int, huge_pages: bool = False) -> list[_Arm]:
    """All arms for one width, each with layers enough that the dense ones are twice the cache."""
    layers = max(2, math.ceil(2 * cache / (4 * width**2)))
    _check_memory(width, tau, layers, device)
    tables = _memory_layers(width, tau, layers, device)
    if huge_pages:
        for module in itertools.chain(*tables.values()):
            use_huge_pages_(module)
    arms = [_dense(BASE, [nn.Linear(width, width, device=device) for _ in range(layers)])]
    if peers:
        arms += _dense_peers(width, layers, device)
        arms += _lookup_peers(tables["float32"], width, tau)
        if width % 4 == 0:  # rows of whole float32 numbers
            arms += [_row_sum(dtype, modules, width, tau) for dtype, modules in tables.items()]
    for dtype, modules in tables.items():
        gathered = _gathered_bytes(width, tau, dtype)
        arms.append(_Arm(f"kernel {dtype}", [_kernel(module) for module in modules], _chunks(tau), gathered))
        arms.append(_Arm(f"module {dtype}", list(modules), _same, gathered))
    return arms


def _check_memory(width: int, tau: int, layers: int, device: str) -> None:
    needed = layers * sum(table_bytes(width, width, tau, dtype) for dtype in ("float32", "bfloat16", "int8"))
    free = free_bytes(torch.device(device))
    if free is not None and needed > free:
        raise MemoryFormerError(
            f"width {width} needs {needed / 2**30:.1f} GiB for the tables of {layers} layers, and "
            f"{free / 2**30:.1f} GiB are free: choose a smaller width or tau"
        )


def _memory_layers(width: int, tau: int, layers: int, device: str) -> dict[str, list[nn.Module]]:
    made: dict[str, list[nn.Module]] = {"float32": [], "bfloat16": [], "int8": []}
    for _ in range(layers):
        layer = MemoryLayer(width, width, tau, device=device).requires_grad_(False).eval()
        half = (
            MemoryLayer(width, width, tau, device=device, dtype=torch.bfloat16).requires_grad_(False).eval()
        )
        half.load_state_dict(layer.state_dict())
        for name, module in zip(made, (layer, half, QuantizedMemoryLayer.from_layer(layer)), strict=True):
            made[name].append(module)
    return made


def _dense(name: str, layers: Sequence[nn.Module], dtype: torch.dtype = torch.float32, size: int = 4) -> _Arm:
    width = layers[0].in_features
    assert isinstance(width, int)
    return _Arm(name, list(layers), lambda x: x.to(dtype), lambda _: size * width**2)


def _dense_peers(width: int, layers: int, device: str) -> list[_Arm]:
    half = [nn.Linear(width, width, device=device, dtype=torch.bfloat16) for _ in range(layers)]
    arms = [_dense("nn.Linear bfloat16", half, torch.bfloat16, 2)]
    if device == "cpu" and torch.backends.quantized.engine != "none":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchao to come; this is what torch itself has
            bytes_ = [
                torch.ao.quantization.quantize_dynamic(
                    nn.Sequential(nn.Linear(width, width)), dtype=torch.qint8
                )[0]
                for _ in range(layers)
            ]
        arms.append(_dense("nn.Linear int8 dynamic", bytes_, size=1))
    return arms


def _lookup_peers(layers: Sequence[nn.Module], width: int, tau: int) -> list[_Arm]:
    def arm(name: str, lookup: Callable[[Tensor, Tensor, Tensor], Tensor]) -> _Arm:
        calls = [_bound(lookup, layer) for layer in layers]
        return _Arm(name, calls, _chunks(tau), _gathered_bytes(width, tau, "float32"))

    return [arm("embedding_bag + hash float32", embedding_bag_lookup), arm(OFFICIAL, official_lookup)]


def _bound(lookup: Callable[[Tensor, Tensor, Tensor], Tensor], layer: Any) -> Call:
    tables, bias = layer.tables, layer.bias  # fetched here: a module's attributes are found by Python code
    return lambda z: lookup(z, tables, bias)


def embedding_bag_lookup(
    z: Tensor, tables: Tensor, bias: Tensor, score: str = "scaled", temperature: float = 1.0
) -> Tensor:
    """The look-up in torch's own operations: the hash, then `F.embedding_bag`; differentiable by autograd.

    z [N, K, tau], tables [K, 2**tau, h], bias [h] -> [N, h].
    """
    chunks, rows, _ = tables.shape
    codes = hash_codes(z) + rows * torch.arange(chunks, device=z.device)
    weights = hash_weights(z, score=score, temperature=temperature)
    return F.embedding_bag(codes, tables.flatten(0, 1), mode="sum", per_sample_weights=weights) + bias


def official_lookup(z: Tensor, tables: Tensor, bias: Tensor) -> Tensor:
    """The authors' PyTorch path as its operations go: the code summed in floats, all rows side by side.

    z [N, K, tau], tables [K, 2**tau, h], bias [h] -> [N, h], with the scaled score.
    """
    tau = z.shape[-1]
    powers = 2 ** torch.arange(tau - 1, -1, -1, dtype=z.dtype, device=z.device)
    codes = torch.sum((z >= 0).to(z.dtype) * powers, -1).int()
    sizes = z.abs()
    weights = sizes.sum(-1) / torch.prod(1 + torch.exp(-2 * sizes), -1)
    index = codes.unsqueeze(-1).expand(*codes.shape, tables.shape[2]).long()
    rows = tables.permute(1, 0, 2).gather(0, index)
    return (rows * weights.unsqueeze(-1)).sum(1) + bias


def _row_sum(dtype: str, layers: Sequence[Any], width: int, tau: int) -> _Arm:
    """Only reads: `F.embedding_bag` without weights, over the bytes of the rows taken for float32 numbers."""
    calls = [_bag(layer.tables.detach().flatten(0, 1).view(torch.float32)) for layer in layers]
    return _Arm(f"row sum, no hash {dtype}", calls, _row_numbers(tau), _gathered_bytes(width, tau, dtype))


def _bag(rows: Tensor) -> Call:
    return lambda index: F.embedding_bag(index, rows, mode="sum")


def _row_numbers(tau: int) -> Call:
    def of_all_tables(x: Tensor) -> Tensor:
        codes = hash_codes(x.unflatten(-1, (-1, tau)))
        return codes + 2**tau * torch.arange(codes.shape[1], device=x.device)

    return of_all_tables


def _kernel(layer: Any) -> Call:
    tables, bias, scales = layer.tables, layer.bias, getattr(layer, "scales", None)
    lookup = backends.chosen(tables.device.type).output
    return lambda z: lookup(z, tables, bias, scales, "scaled", 1.0)


def _chunks(tau: int) -> Call:
    return lambda x: x.unflatten(-1, (-1, tau))


def _same(x: Tensor) -> Tensor:
    return x


def _gathered_bytes(width: int, tau: int, dtype: str) -> Callable[[int], int]:
    row = table_bytes(width, width, tau, dtype) >> tau
    return lambda tokens: tokens * row


@torch.no_grad()
def _measure(
    arms: Sequence[_Arm],
    width: int,
    tokens: int,
    device: str,
    clock: Callable[[], float],
    seconds: float,
    copy: float,
    skewed: bool = False,
) -> list[Timing]:
    gathered = arms[-1].bytes_read(tokens) * 4  # that arm has int8 tables
    arms = [arm for arm in arms if arm.name != OFFICIAL or gathered <= LARGEST_GATHER]
    times: dict[str, list[float]] = {arm.name: [] for arm in arms}
    started, repeat = time.perf_counter(), 0
    while repeat < WARM_UP + LEAST_REPEATS or time.perf_counter() - started < seconds:
        for arm in arms:
            x = arm.prepare(_input(tokens, width, device, skewed))
            taken = _timed(arm.calls[repeat % len(arm.calls)], x, device, clock)
            if repeat >= WARM_UP:
                times[arm.name].append(taken)
        repeat += 1
    base = _lower_third(times[BASE])
    return [_timing(arm, width, tokens, times[arm.name], base, copy) for arm in arms]


def _input(tokens: int, width: int, device: str, skewed: bool) -> Tensor:
    x = torch.randn(tokens, width, device=device)
    return torch.where(torch.rand(tokens, 1, device=device) < 2 / 3, x.abs(), x) if skewed else x


def _timing(arm: _Arm, width: int, tokens: int, times: list[float], base: float, copy: float) -> Timing:
    taken, read = _lower_third(times), arm.bytes_read(tokens)
    return Timing(
        width, tokens, arm.name, taken, statistics.median(times), base / taken, read, read / taken / copy
    )


def _timed(call: Call, x: Any, device: str, clock: Callable[[], float]) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    call(x)
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def _lower_third(times: Sequence[float]) -> float:
    return sorted(times)[(len(times) - 1) // 3]


def _last_cache(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).L2_cache_size)
    found = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    try:
        return int(found.read_text("ascii").strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return CACHE_BYTES


def _environment(device: str, threads: int) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    found: dict[str, Any] = {
        "device": name,
        "threads": threads,
        "torch": torch.__version__,
        "backend": backends.name_for(device),
    }
    if hasattr(os, "getloadavg"):  # not on Windows
        found["load"] = os.getloadavg()[0]
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
