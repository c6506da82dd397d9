"""What `lmlab.training.train` costs over a bare PyTorch loop that does the same steps.

    OMP_NUM_THREADS=1 python benchmarks/trainer_overhead.py [--repeats 12] [--steps 8]

Both train the same small Llama on the same batches with fused AdamW, clipping and a cosine schedule, in one
process and in turn, so that a busy machine slows both. The ratio is (our time / bare time), the median over
pairs with its 95% interval. `steps` is the time inside training steps; `whole call` adds what `train` does
once: building the Trainer, the data loader and the optimizer, so it falls as runs get longer.
"""

from __future__ import annotations

import argparse
import time

import torch
from transformers import get_cosine_schedule_with_warmup

from lmlab.accounting import count_parameters, median_interval
from lmlab.batching import permutation
from lmlab.models import build_model
from lmlab.trainer import decay_groups
from lmlab.training import TrainingConfig, train

LLAMA = {
    "model_type": "llama",
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
BATCH, LENGTH = 16, 128


def bare_loop(model: torch.nn.Module, blocks: torch.Tensor, steps: int) -> None:
    order = torch.as_tensor(permutation(len(blocks), 0, 0))
    optimizer = torch.optim.AdamW(decay_groups(model, 0.1), lr=1e-3, betas=(0.9, 0.95), fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, steps)
    model.train()
    for step in range(steps):
        batch = blocks[order[step * BATCH : (step + 1) * BATCH]]
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    config = TrainingConfig(max_steps=options.steps, batch_size=BATCH, learning_rate=1e-3, warmup_steps=2)
    blocks = torch.randint(
        0, 2048, (options.steps * BATCH, LENGTH), generator=torch.Generator().manual_seed(0)
    )
    ours, bare = build_model(LLAMA, 0), build_model(LLAMA, 0)

    def whole_call() -> tuple[float, float]:
        start = time.perf_counter()
        result = train(ours, blocks, config)
        return time.perf_counter() - start, result.seconds

    def baseline() -> float:
        start = time.perf_counter()
        bare_loop(bare, blocks, options.steps)
        return time.perf_counter() - start

    whole_call(), baseline()
    calls, steps, bares = [], [], []
    for repeat in range(options.repeats):
        if repeat % 2:
            bare_seconds, (call, inside) = baseline(), whole_call()
        else:
            (call, inside), bare_seconds = whole_call(), baseline()
        calls.append(call / bare_seconds)
        steps.append(inside / bare_seconds)
        bares.append(bare_seconds)
    tokens = options.steps * BATCH * LENGTH
    print(
        f"{count_parameters(ours):,} parameters, batch {BATCH} x {LENGTH}, {torch.get_num_threads()} threads"
    )
    print(f"bare loop: {tokens / min(bares):,.0f} tokens/s at best")
    print("| train() / bare loop | median | 95% interval |\n|---|---|---|")
    for name, values in (("steps", steps), (f"whole call of {options.steps} steps", calls)):
        ratio = median_interval(values)
        print(f"| {name} | {ratio.median:.3f} | {ratio.low:.3f} - {ratio.high:.3f} |")


if __name__ == "__main__":
    main()
