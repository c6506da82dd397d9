"""How fast models train on a CPU: the fused layout (one token a step) beside the paper's star (four).

    python benchmarks/training.py [--context 256] [--rows 16] [--repeats 5]

Forward and backward of one batch, the models in one process and in turn, one thread. CPU time, so that other
work on the machine counts little; median of the repeats. A quick run of `make omnirl` reads about 10M steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch

from omnirl.model.config import OmniRLConfig
from omnirl.model.modeling import OmniRL
from omnirl.training.segments import Batch, LossPlan, batch_gradients

STATES, ACTIONS = 16, 5
MODELS = {
    "fused, attention": {"layout": "fused"},
    "fused, attention, bf16": {"layout": "fused"},
    "fused, gated DeltaNet": {"layout": "fused", "mixer": "gated_deltanet"},
    "star, attention": {"layout": "star"},
    "star, gated DeltaNet": {"layout": "star", "mixer": "gated_deltanet"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    batch = random_batch(options.rows, options.context)
    models = {
        name: OmniRL(OmniRLConfig(STATES, ACTIONS, 64, 4, 4, **kind)).train() for name, kind in MODELS.items()
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for repeat in range(options.repeats + 1):
        for name, model in models.items():
            spent = seconds(model, batch, "bf16" if name.endswith("bf16") else "fp32")
            if repeat:  # the first is a warm-up
                times[name].append(spent)
    steps = options.rows * options.context
    print(
        f"1 thread, torch {torch.__version__}, batch {options.rows} x {options.context} steps, "
        "width 64, 4 layers"
    )
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(
        "| model | parameters | steps / CPU s | steps / s | tokens / CPU s | fused / it |\n"
        "|---|---|---|---|---|---|"
    )
    best = statistics.median(cpu for cpu, _ in times["fused, attention"])
    for name, model in models.items():
        cpu = statistics.median(cpu for cpu, _ in times[name])
        wall = statistics.median(wall for _, wall in times[name])
        rates = f"{steps / cpu:,.0f} | {steps / wall:,.0f} | {steps * model.layout.size / cpu:,.0f}"
        print(f"| {name} | {model.num_parameters():,} | {rates} | {cpu / best:.1f} |")


def random_batch(rows: int, context: int) -> Batch:
    """Ids without meaning: the time does not depend on them."""
    limits = {"observations": STATES, "tags": 8, "actions": ACTIONS + 1, "labels": ACTIONS}
    batch = {name: torch.randint(limit, (rows, context)) for name, limit in limits.items()}
    return {**batch, "rewards": torch.randn(rows, context)}


def seconds(model: OmniRL, batch: Batch, precision: str) -> tuple[float, float]:
    """CPU and wall time of one gradient."""
    weights = (0.2, 0.4, 0.4) if model.config.has_world_model else (1.0, 0.0, 0.0)
    plan = LossPlan.of(batch, ACTIONS, weights, 512, None, precision)  # type: ignore[arg-type]
    cpu, wall = time.process_time(), time.perf_counter()
    batch_gradients(model, batch, plan)
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
