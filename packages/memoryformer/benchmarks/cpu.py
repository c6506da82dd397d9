"""Memory Layers on a CPU beside their peers: one layer, a training step, and decoding with whole models.

    python benchmarks/cpu.py [--parts layers skewed threads step decode] [--seconds 10] [--repeats 20]
                             [--output FILE.json]

All in one process and in turn, so that a busy machine slows both sides of a ratio; one thread.
`layers` is `memoryformer bench` (its protocol stands in `memoryformer.benchmark`).
`skewed` is the same without peers on input that fetches one row of each table for two of three tokens: more
uneven than the activations of a trained model (claim C8), which lie between it and the uniform input of
`layers`. `threads` is on two threads, by the clock. Both take some 3 seconds for each width and batch size.
`step` is a training step, forward, backward, clipping and AdamW (fused, as in `memoryformer train`), of a
model of d 256, 4 layers and a vocabulary of 4096 on 16 x 256 tokens, against the same model with torch's own
operations in its Memory Layers (the hash, then `F.embedding_bag`, by autograd); and without clipping and
AdamW, the same for both.
`decode` is greedy decoding of an untrained model of d 512, 6 layers and a vocabulary of 4096, against
GPT-NeoX of the same shape, as claim C9 measures it.

Goals, times nn.Linear float32: int8 10 at 1 token (8 through the module) and 1.8 at 64 and 1024; float32 at 1
token 5.5 at d 768 and 8 at d 2048, and there 0.9 of the memory's rate (`of copy`; "row sum, no hash" is
the same rows added up by torch). A step 1.5 times embedding_bag. Decoding 3 times GPT-NeoX, int8 5 times.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from lmlab.accounting import interleaved_ratio
from memoryformer import MemoryFormerConfig, MemoryFormerForCausalLM, MemoryLayer, param_groups
from memoryformer.benchmark import bench, embedding_bag_lookup
from memoryformer.reproduce.decoding import DecodingConfig, decoding_metrics, decoding_ways
from memoryformer.terminal import aligned, timings

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
SHORT = 3.0  # seconds for each width and batch size of the parts below
SHORT_PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "skewed": (
        "two of three tokens fetch the same row of each table",
        {"tokens": (1, 64, 1024), "skewed": True},
    ),
    "threads": ("two threads, by the clock", {"tokens": (1, 64), "threads": 2}),
}
PARTS = ("layers", *SHORT_PARTS, "step", "decode")
LAPTOP = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 4096}
BATCH, CONTEXT = 16, 256
DECODE = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "vocab_size": 4096,
    "prompt_tokens": 16,
    "new_tokens": 128,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--widths", type=int, nargs="+", default=[768, 2048])
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each width and batch size")
    parser.add_argument(
        "--repeats", type=int, default=20, help="of the training step, and rounds of decoding"
    )
    parser.add_argument("--output", type=Path, help="a file for the numbers as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    if "layers" in options.parts:
        report = bench(options.widths, options.tokens, seconds=options.seconds)
        found["layers"] = asdict(report)
        print("\n".join(timings(report)), flush=True)
    for part in [part for part in SHORT_PARTS if part in options.parts]:
        title, settings = SHORT_PARTS[part]
        report = bench(options.widths, **settings, peers=False, seconds=min(options.seconds, SHORT))
        found[part] = asdict(report)
        print("\n".join(["", f"{part}: {title}", *timings(report)]), flush=True)
    if "step" in options.parts:
        found["step"] = training_step(options.repeats)
        for name, ratio in found["step"].items():
            print(f"\n{name}: embedding_bag / ours {ratio}", flush=True)
    if "decode" in options.parts:
        found["decode"] = decode(options.repeats)
        rows = [(name, f"{value.mean:.2f}") for name, value in found["decode"].items()]
        print("\n" + "\n".join(aligned(rows)))
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=2, default=vars) + "\n", "utf-8")


def training_step(repeats: int) -> dict[str, Any]:
    """Seconds on F.embedding_bag over seconds of ours: lmlab's `Ratio`, the median over pairs."""
    config = MemoryFormerConfig(**LAPTOP, max_position_embeddings=CONTEXT)
    ours, peer = (MemoryFormerForCausalLM(config) for _ in range(2))
    for layer in peer.modules():
        if isinstance(layer, MemoryLayer):
            layer.forward = MethodType(bag_forward, layer)
    tokens = torch.randint(LAPTOP["vocab_size"], (BATCH, CONTEXT))
    return {
        name: interleaved_ratio(make(peer, tokens), make(ours, tokens), repeats=repeats, warmup=2)
        for name, make in (("training step", stepper), ("forward and backward", differentiator))
    }


def bag_forward(layer: MemoryLayer, x: Tensor) -> Tensor:
    z = x.reshape(-1, layer.num_chunks, layer.tau)
    return embedding_bag_lookup(z, layer.tables, layer.bias).view(*x.shape[:-1], layer.out_features)


def stepper(model: MemoryFormerForCausalLM, tokens: Tensor) -> Any:
    optimizer = torch.optim.AdamW(param_groups(model), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def differentiator(model: MemoryFormerForCausalLM, tokens: Tensor) -> Any:
    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        model.zero_grad()

    return step


def decode(rounds: int) -> dict[str, Any]:
    """Tokens a second of every way, and their ratios: see `memoryformer.reproduce.decoding`."""
    config = DecodingConfig(**DECODE, rounds=rounds)
    prompt = torch.randint(config.vocab_size, (1, config.prompt_tokens))
    ways = decoding_ways(config, seed=0)
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for write in ways.values():
        write(prompt)
    for _ in range(rounds):
        for way, write in ways.items():
            start = time.perf_counter()
            write(prompt)
            speeds[way].append(config.new_tokens / (time.perf_counter() - start))
    return decoding_metrics({"speeds": speeds})


if __name__ == "__main__":
    main()
