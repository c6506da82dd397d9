"""What a model costs: parameters, floating-point operations, seconds; and fair ratios of two timings."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module, embedding: bool = True, trainable_only: bool = False) -> int:
    """The number of weights; a weight that is used twice (tied embeddings) counts once.

    With `embedding=False` the input embeddings, and with them a head tied to them, are left out: the count
    that scaling laws are written in. An untied head is a matrix product and stays in.
    """
    left_out: set[int] = set()
    if not embedding:
        left_out = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return sum(
        p.numel()
        for p in model.parameters()
        if id(p) not in left_out and (p.requires_grad or not trainable_only)
    )


def forward_flops(model: nn.Module, batch: int, length: int) -> int:
    """Floating-point operations of one forward pass over (batch, length) tokens, a multiply-add counting 2.

    Counted by `torch.utils.flop_counter` on a copy of the model on the meta device, so neither time nor
    memory is spent, whatever the size. Only matrix products count (embedding look-ups, norms and activations
    do not), and attention counts in full, without the half that a causal mask could save.
    A training step is about three times this: the backward pass has two products for each one here.
    """
    weights = [*model.parameters(), *model.buffers()]
    # deepcopy takes these from the memo: the copy never holds the values.
    memo: dict[int, object] = {id(w): _on_meta(w) for w in weights}
    twin = copy.deepcopy(model, memo).eval()
    tokens = torch.zeros((batch, length), dtype=torch.long, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(input_ids=tokens)
    return counter.get_total_flops()


def _on_meta(weight: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(weight, device="meta", requires_grad=False)
    return nn.Parameter(empty, weight.requires_grad) if isinstance(weight, nn.Parameter) else empty


@dataclass(frozen=True)
class Ratio:
    """A median ratio with an interval that holds the true median at about 95% (see `median_interval`)."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def step_time(step: Callable[[], object], repeats: int = 10, warmup: int = 2) -> list[float]:
    """Seconds of each of `repeats` calls, after `warmup` calls that are not counted."""
    for _ in range(warmup):
        _timed(step)
    return [_timed(step) for _ in range(repeats)]


def interleaved_ratio(
    a: Callable[[], object], b: Callable[[], object], repeats: int = 20, warmup: int = 2
) -> Ratio:
    """Time of `a` over time of `b`: the median over pairs of calls made one right after the other.

    A machine that slows down for a while slows both halves of a pair, and which half comes first alternates,
    so the ratio holds still where the times do not. Above 1: `a` is slower.
    Raises `ValueError` for `repeats` below 6, too few for an interval, before anything is measured.
    """
    _check_enough_for_interval(repeats)
    for _ in range(warmup):
        _timed(a), _timed(b)
    ratios = []
    for repeat in range(repeats):
        if repeat % 2:
            seconds_b, seconds_a = _timed(b), _timed(a)
        else:
            seconds_a, seconds_b = _timed(a), _timed(b)
        ratios.append(seconds_a / seconds_b)
    return median_interval(ratios)


def median_interval(values: list[float]) -> Ratio:
    """The median with the order statistics that bracket it with at least 95% coverage.

    The number of values below the true median is binomial(n, 1/2), so the k-th smallest and the k-th largest
    hold it between them with probability 1 - 2 P(binomial < k): the largest such k is taken.
    Raises `ValueError` for fewer than 6 values, where even the extremes do not reach 95%.
    """
    n, ordered = len(values), sorted(values)
    _check_enough_for_interval(n)
    k, below = 1, 2 * math.comb(n, 0) / 2**n
    while below + 2 * math.comb(n, k) / 2**n <= 0.05:
        below += 2 * math.comb(n, k) / 2**n
        k += 1
    return Ratio(statistics.median(ordered), ordered[k - 1], ordered[n - k])


def _check_enough_for_interval(n: int) -> None:
    if n < 6:
        raise ValueError(f"a 95% interval of a median needs at least 6 values, got {n}")


def _timed(step: Callable[[], object]) -> float:
    _wait_for_device()
    start = time.perf_counter()
    step()
    _wait_for_device()
    return time.perf_counter() - start


def _wait_for_device() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
