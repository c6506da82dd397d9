"""Log-probs of chosen tokens on a GPU beside their peers: time and memory, forward and with gradients.

    python benchmarks/gpu.py [--repeats 30] [--json FILE]

Peers: PyTorch with all logits and by chunks of 1,024 rows under activation checkpointing, Liger's fused
linear cross-entropy and Apple's cut-cross-entropy where they are installed. All in one process and in turn;
a time is the median over the repeats.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from implicit_prm_triton import linear_log_probs, reference

SHAPES = {"Llama 3.2 1B": (2048, 128_256), "Llama 3.1 8B": (4096, 128_256), "SmolLM2 135M": (576, 49_152)}
ROWS = (1024, 8192)
Call = Callable[[Tensor, Tensor, Tensor], Tensor]


def by_chunks(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """PyTorch, 1,024 rows at a time; the backward pass makes their logits again."""
    parts = zip(hidden.split(1024), targets.split(1024), strict=True)
    return torch.cat(
        [checkpoint(reference.linear_log_probs, h, weight, t, use_reentrant=False) for h, t in parts]
    )


def peers() -> dict[str, Call]:
    """Every way that is installed, ours first."""
    found: dict[str, Call] = {
        "implicit-prm-triton": linear_log_probs,
        "PyTorch": reference.linear_log_probs,
        "PyTorch by chunks": by_chunks,
    }
    apple = installed("cut_cross_entropy")
    if apple is not None:
        found["cut-cross-entropy"] = lambda h, w, t: -apple.linear_cross_entropy(h, w, t, reduction="none")
    liger = installed("liger_kernel.transformers.functional")
    if liger is not None:
        found["Liger"] = lambda h, w, t: -liger.liger_fused_linear_cross_entropy(h, w, t, reduction="none")
    return found


def installed(name: str) -> Any:
    """Return the module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def measured(call: Call, inputs: tuple[Tensor, Tensor, Tensor], gradients: bool) -> tuple[float, int]:
    """Milliseconds and the most bytes beyond the inputs, of one call."""
    for leaf in inputs[:2]:
        leaf.grad = None
        leaf.requires_grad_(gradients)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    values = call(*inputs)
    if gradients:
        values.sum().backward()
    end.record()
    end.synchronize()
    return start.elapsed_time(end), torch.cuda.max_memory_allocated() - before


def compare(rows: int, width: int, words: int, gradients: bool, repeats: int) -> list[dict[str, Any]]:
    """A row a peer; one that does not fit in memory says so."""
    hidden = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(words, width, device="cuda", dtype=torch.bfloat16) / width**0.5
    inputs = (hidden, weight, torch.randint(words, (rows,), device="cuda"))
    calls = peers()
    taken: dict[str, list[tuple[float, int]]] = {name: [] for name in calls}
    for round_ in range(repeats + 2):
        for name, call in calls.items():
            if name in taken:
                try:
                    one = measured(call, inputs, gradients)
                except torch.cuda.OutOfMemoryError:
                    del taken[name]
                    continue
                if round_ >= 2:
                    taken[name].append(one)
    return [
        {
            "peer": name,
            "milliseconds": statistics.median(time for time, _ in taken[name]) if name in taken else None,
            "bytes": max(size for _, size in taken[name]) if name in taken else None,
        }
        for name in calls
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    if not torch.cuda.is_available():
        print(
            "benchmarks/gpu.py needs a CUDA GPU; torch sees none here. Nothing was measured.", file=sys.stderr
        )
        return 2
    device = torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}, bfloat16, {options.repeats} repeats")
    found = []
    for model, (width, words) in SHAPES.items():
        for rows in ROWS:
            for gradients in (False, True):
                place = {"model": model, "rows": rows, "pass": "both" if gradients else "forward"}
                for row in compare(rows, width, words, gradients, options.repeats):
                    found.append(place | row)
                    numbers = (
                        "out of memory"
                        if row["bytes"] is None
                        else f"{row['milliseconds']:9.3f} ms {row['bytes'] / 2**30:7.2f} GiB"
                    )
                    print(f"{model:<14}{rows:>6} {place['pass']:<8}{row['peer']:<22}{numbers}", flush=True)
    if options.json:
        content = {"device": device, "torch": torch.__version__, "rows": found}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
