"""Log-probs of a head's chosen tokens: `linear_log_probs` beside logits, log-softmax and gather.

    python benchmarks/logprobs.py [--vocabularies 32000 128000] [--width 576] [--tokens 1024]
                                  [--chunk-sizes 256 1024] [--repeats 7] [--threads 1]

Peers: `textbook` is log_softmax(hidden @ weight.T) and a gather, as the official script has it; `logsumexp`
is the chosen logit less the logits' logsumexp, as TRL has it. Passes: `score` is the forward pass alone;
`frozen` and `train` add the backward pass, to the hidden states alone and to the head's weight too. There
ours takes 2 and, in c chunks, 4 - 1/c products of the size of the head where the peers, which keep all
logits, take 2 and 3.

Times are the process's own processor time (on a GPU the clock's), so that other work on the machine is not
counted; a ratio is (time of the peer / time of ours), the median over pairs run one right after the other,
with its 95% interval: above 1, ours is faster. Memory is what the process's high-water mark rises by in one
pass, in chunks of float32 logits (Linux, CPU). Goals (section 8): score at least 0.9 of the textbook at
32,000 words and above 1 beyond; at most 2 chunks of memory.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from implicit_prm.logprobs import linear_log_probs
from lmlab.accounting import Ratio, interleaved_ratio, median_interval

LogProbs = Callable[[Tensor, Tensor, Tensor], Tensor]


def textbook(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return (hidden @ weight.T).float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]


def logsumexp(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = (hidden @ weight.T).float()
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)


def ours(chunk_size: int) -> LogProbs:
    return lambda hidden, weight, targets: linear_log_probs(hidden, weight, targets, chunk_size)


PEERS: dict[str, LogProbs] = {"textbook": textbook, "logsumexp": logsumexp}
PASSES = {"score": (False, False), "frozen": (True, False), "train": (True, True)}


def one_pass(log_probs: LogProbs, name: str, tokens: int, width: int, vocabulary: int) -> Callable[[], None]:
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    needs_hidden, needs_weight = PASSES[name]
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=device, dtype=dtype).requires_grad_(needs_hidden)
    weight = (torch.randn(vocabulary, width, device=device, dtype=dtype) / width**0.5).requires_grad_(
        needs_weight
    )
    targets = torch.randint(vocabulary, (tokens,), device=device)
    needed = [x for x in (hidden, weight) if x.requires_grad]

    def run() -> None:
        values = log_probs(hidden, weight, targets)
        if needed:
            torch.autograd.grad(values.sum(), needed)

    return run


def ratio(peer: Callable[[], None], mine: Callable[[], None], repeats: int) -> Ratio:
    """Time of `peer` over time of `mine`, the median over pairs; which comes first alternates."""
    if torch.accelerator.is_available():
        return interleaved_ratio(peer, mine, repeats)
    peer(), mine()
    ratios = []
    for repeat in range(repeats):
        pair = {}
        for run in (peer, mine) if repeat % 2 else (mine, peer):
            start = time.process_time()
            run()
            pair[run] = time.process_time() - start
        ratios.append(pair[peer] / pair[mine])
    return median_interval(ratios)


def rise(run: Callable[[], None]) -> int:
    """Bytes by which the process's high-water mark rises in `run` (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # else freed memory that malloc kept would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the mark falls to what is held now
    before = high_water()
    run()
    return high_water() - before


def high_water() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 128_000])
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--chunk-sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gpu = torch.accelerator.is_available()
    print(
        f"{'GPU, bfloat16' if gpu else 'CPU, float32'}, torch {torch.__version__}, {options.tokens} tokens,"
    )
    print(f"width {options.width}, {options.threads} thread(s), {options.repeats} pairs\n")
    print(
        f"| words | pass | chunk | {' | '.join(f'{peer} / ours' for peer in PEERS)} | memory, chunks: ours |",
        end="",
    )
    print(f" {' | '.join(PEERS)} |\n|---|---|---|{'---|' * (2 * len(PEERS) + 1)}")
    for vocabulary in options.vocabularies:
        for name in options.passes:
            sizes = (options.tokens, options.width, vocabulary)
            for chunk_size in options.chunk_sizes:
                mine = one_pass(ours(chunk_size), name, *sizes)
                peers = [one_pass(peer, name, *sizes) for peer in PEERS.values()]
                ratios = [ratio(peer, mine, options.repeats) for peer in peers]
                chunk = 4 * chunk_size * vocabulary
                rises = [] if gpu else [f"{rise(run) / chunk:.1f}" for run in (mine, *peers)]
                cells = [str(vocabulary), name, str(chunk_size), *map(str, ratios), *rises]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
