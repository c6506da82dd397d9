"""A whole training step of the setting-2 130M model: LPA (rank 128) beside dense.

    python benchmarks/train_step.py [--batch 4] [--repeats 8]

Forward, backward, clipping and AdamW on blocks of 256 tokens, the two models in one process and in turn. The
ratio is (time of LPA / time of dense), the median over pairs with its 95% interval. FLOPs allow a ratio of
0.831 for forward and backward.
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModelForCausalLM

import lpa
from lmlab.accounting import interleaved_ratio
from lpa.reproduce.timing import training_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=8)
    options = parser.parse_args()
    preset = lpa.presets["setting2-130m"]
    tokens = torch.randint(preset.config.vocab_size, (options.batch, 256))
    dense, low = (AutoModelForCausalLM.from_config(preset.config) for _ in range(2))
    lpa.apply_lpa(low, preset.lpa)
    cost = lpa.estimate(low, seq_len=256)
    ratio = interleaved_ratio(
        training_step(low, tokens), training_step(dense, tokens), repeats=options.repeats, warmup=1
    )
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, batch {options.batch} x 256\n")
    print("| model | parameters | FLOPs (LPA / dense) | time of a step (LPA / dense) |\n|---|---|---|---|")
    flops = cost.flops["total"] / cost.dense_flops["total"]
    print(f"| setting 2, 130M | {cost.params:,} of {cost.dense_params:,} | {flops:.3f} | {ratio} |")


if __name__ == "__main__":
    main()
