"""Advantages of one batch: ours beside the official code's loops over groups and positions.

    python benchmarks/advantages.py [--responses 1024] [--tokens 3072] [--samples 4]
                                    [--repeats 9] [--threads 1]

`loops` is the official form written out: a mask and a mean a response, the baseline a group, then from the
last position to the first one column at a time, and whitening. Its results and ours are compared first, and
only the same result is set beside it. Rows of random lengths, float32. Times are the process's own processor
time (on a GPU the clock's), so that other work on the machine is not counted: medians over calls; the ratio
is over pairs run one right after the other, with its 95% interval. Goal (section 8): (1024, 3072) in less
than 100 ms on one core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from implicit_prime.core import grpo_advantage, rloo_advantage, whiten
from lmlab.accounting import median_interval


def loops(process: Tensor, outcome: Tensor, mask: Tensor, samples: int, gamma: float) -> Tensor:
    """The official RLOO on both sources of reward; groups stand together."""
    last = mask & (mask.cumsum(1) == mask.sum(1, keepdim=True))
    returns = []
    for source, inside, discount in ((process, mask, gamma), (outcome[:, None] * last, last, 1.0)):
        rewards = source.masked_fill(~inside, 0.0)
        for start in range(0, len(rewards), samples):
            rows = range(start, start + samples)
            total = torch.stack([rewards[row][inside[row]].mean() for row in rows]).sum()
            group, tokens = rewards[start : start + samples], inside[start : start + samples]
            group[tokens] = group[tokens] * (samples / (samples - 1)) - total / (samples - 1)
        summed = torch.zeros_like(rewards)
        summed[:, -1] = rewards[:, -1]
        for t in reversed(range(rewards.shape[1] - 1)):
            summed[:, t] = rewards[:, t] + discount * summed[:, t + 1]
        returns.append(summed)
    return whiten(returns[0] + returns[1], mask)


def seconds(run: Callable[[], Tensor]) -> float:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
        start = time.perf_counter()
        run()
        torch.accelerator.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=3072)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    torch.manual_seed(0)
    shape = (options.responses, options.tokens)
    lengths = torch.randint(options.tokens // 4, options.tokens + 1, (options.responses, 1))
    mask = (torch.arange(options.tokens) < lengths).to(device)
    process, outcome = (
        torch.randn(shape, device=device) / 100,
        torch.randint(2, shape[:1], device=device).float(),
    )
    ids = torch.arange(options.responses, device=device) // options.samples
    batch = (process, outcome, mask, ids)

    for gamma in (1.0, 0.99):
        ours = rloo_advantage(*batch, gamma, baseline="official", whiten=True)
        torch.testing.assert_close(ours, loops(*batch[:3], options.samples, gamma), atol=1e-4, rtol=1e-4)

    print(f"{device}, torch {torch.__version__}, {list(shape)} float32, {options.samples} samples a prompt,")
    print(f"{options.threads} thread(s), {options.repeats} pairs\n")
    print("| ours | gamma | ms | official loops, ms | loops / ours |\n|---|---|---|---|---|")
    official = partial(rloo_advantage, *batch, baseline="official", whiten=True)
    for gamma in (1.0, 0.99, 0.5):
        mine = partial(official, gamma)
        peer = partial(loops, *batch[:3], options.samples, gamma)
        mine(), peer()
        pairs = [
            (seconds(mine), seconds(peer)) if repeat % 2 else (seconds(peer), seconds(mine))[::-1]
            for repeat in range(options.repeats)
        ]
        own, theirs = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = median_interval([theirs / own for own, theirs in pairs])
        print(f"| RLOO, official, whitened | {gamma:g} | {own:.0f} | {theirs:.0f} | {ratio} |", flush=True)
    others: dict[str, Callable[[], Tensor]] = {
        "RLOO, paper": partial(rloo_advantage, *batch),
        "RLOO, outcomes alone": partial(rloo_advantage, None, *batch[1:]),
        "GRPO": partial(grpo_advantage, *batch),
    }
    for name, run in others.items():
        run()
        own = 1000 * statistics.median(seconds(run) for _ in range(options.repeats))
        print(f"| {name} | 1 | {own:.0f} | | |", flush=True)


if __name__ == "__main__":
    main()
