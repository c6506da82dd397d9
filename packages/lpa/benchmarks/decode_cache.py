"""One decode step behind a long context: dense caches and latent ones, side by side, in one process.

The shapes of setting 2 (Llama, RoPE) and of the same size without RoPE (setting 1's block), r = 128, random
weights. Steps of all caches are interleaved; the table has medians and their ratio to transformers' default.

    python benchmarks/decode_cache.py [--context 4096] [--batch 1] [--steps 15] [--layers 12]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, StaticCache

import lpa

SIZES = {"vocab_size": 32_001, "hidden_size": 768, "num_attention_heads": 12}
RANK = 128


def llama(layers: int, context: int) -> PreTrainedModel:
    config = LlamaConfig(
        **SIZES, intermediate_size=2048, num_hidden_layers=layers, max_position_embeddings=2 * context
    )
    return lpa.apply_lpa(AutoModelForCausalLM.from_config(config), lpa.LPAConfig(rank=RANK)).eval()


def classic(layers: int, context: int) -> PreTrainedModel:
    config = lpa.ClassicConfig(
        **SIZES,
        intermediate_size=3072,
        num_hidden_layers=layers,
        head_dim=64,
        max_position_embeddings=2 * context,
        rank=RANK,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def caches(model: PreTrainedModel, context: int) -> dict[str, Cache]:
    return {
        "dense, transformers' default (DynamicCache)": DynamicCache(),
        "dense, storage ahead (StaticCache)": StaticCache(model.config, max_cache_len=context + 128),
        "latent values, rotated keys": lpa.latent_cache(model, keys="rotated"),
        "latent": lpa.latent_cache(model),
    }


def fill(model: PreTrainedModel, cache: Cache, batch: int, context: int) -> None:
    ids = torch.randint(0, SIZES["vocab_size"], (1, context), generator=torch.Generator().manual_seed(0))
    for chunk in ids.expand(batch, -1).split(512, dim=1):
        model(chunk, past_key_values=cache, logits_to_keep=1)


def bytes_per_token(cache: Cache, batch: int, context: int) -> float:
    if isinstance(cache, lpa.LatentCache):
        return cache.nbytes / batch / cache.get_seq_length()
    return sum(layer.keys[:, :, :context].nbytes * 2 for layer in cache.layers) / batch / context


@torch.inference_mode()
def measure(build: Callable[[int, int], PreTrainedModel], arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    model = build(arguments.layers, arguments.context)
    kept = caches(model, arguments.context)
    logits: dict[str, torch.Tensor] = {}
    times: dict[str, list[float]] = {name: [] for name in kept}
    for cache in kept.values():
        fill(model, cache, arguments.batch, arguments.context)
    sizes = {name: bytes_per_token(cache, arguments.batch, arguments.context) for name, cache in kept.items()}
    token = torch.zeros(arguments.batch, 1, dtype=torch.long)
    for step in range(arguments.steps + 2):
        for name, cache in kept.items():
            start = time.perf_counter()
            logits[name] = model(token, past_key_values=cache).logits
            if step >= 2:
                times[name].append(time.perf_counter() - start)
    report(times, sizes, logits)


def report(times: dict[str, list[float]], sizes: dict[str, float], logits: dict[str, Any]) -> None:
    base = next(iter(times))
    print("| cache | ms a step | speed / default | bytes a token | bytes, default / this | largest error |")
    print("|---|---|---|---|---|---|")
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(times[base], seconds, strict=True))
        error = (logits[name] - logits[base]).abs().max() / logits[base].abs().max()
        print(
            f"| {name} | {statistics.median(seconds) * 1e3:.1f} | {ratio:.2f} | {sizes[name]:,.0f} "
            f"| {sizes[base] / sizes[name]:.2f} | {error:.0e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("context", 4096), ("batch", 1), ("steps", 15), ("layers", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    for title, build in (("RoPE (setting 2)", llama), ("no RoPE (setting 1's block)", classic)):
        print(f"\n{title}: {arguments}, {torch.get_num_threads()} threads\n")
        measure(build, arguments)


if __name__ == "__main__":
    main()
