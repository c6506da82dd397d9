"""Scoring responses beside the official script's formulation and TRL's: the same model, the same rows.

    python benchmarks/scoring.py [--model FOLDER] [--questions 4] [--batches 8] [--repeats 6] [--threads 1]
    python benchmarks/scoring.py --grid [--lengths 64 256 1024] [--batches 1 8 64]

ours      `HFBackend`: rows sorted by length, the prompt of many responses fed once, the head in chunks and
          only where a response stands
official  the released evaluation's work: rows in the order of the file, padded on the right to the longest of
          the batch, log-softmax of all logits, gather
TRL       the work of GRPOTrainer 1.16 with TRL's own code (`add_fused_lm_head`): prompts padded on the left,
          responses on the right, the head in chunks

Rows begin as tokens and end as the log-probs of their responses; a reference costs the same again on every
side. Times are the process's own processor time, all threads together, so that other work on the machine is
not counted; ratios are medians over pairs of runs one right after the other, with their 95% interval. Goal:
at least 1.8 times the official tokens a second (section 8).

The real rows are GSM8K questions with the four model solutions of each (OpenAI's). The grid, of a small model
with random weights, has random tokens, and so many responses a prompt as a batch has rows, but at least 8.
Their lengths are log-normal around the length in question, spread as those solutions: by half their mean.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from implicit_prm.backends.hf import HFBackend
from implicit_prm.encoding import encode_rows
from implicit_prm.pretrained import load_model, load_tokenizer
from lmlab.accounting import Ratio, median_interval
from tenfold.data import get

SOLVERS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
# With a vocabulary of 32k: a fifth of SmolLM2-135M in depth, half in width, so that a grid takes minutes.
SMALL = LlamaConfig(
    vocab_size=32_000,
    hidden_size=288,
    intermediate_size=768,
    num_hidden_layers=6,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=8192,
)


@dataclass(frozen=True)
class Item:
    """A response as tokens."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and completion."""
        return self.prompt + self.completion


@torch.no_grad()
def official(model: Any, items: list[Item], batch_size: int) -> list[Tensor]:
    """In order, padded to the longest: what `get_logps` of the released script computes."""
    found = []
    for batch in in_order(items, batch_size):
        inputs = pad_sequence([torch.tensor(item.ids) for item in batch], batch_first=True)
        attention = pad_sequence([torch.ones(len(item.ids)) for item in batch], batch_first=True)
        logits = model(input_ids=inputs, attention_mask=attention).logits[:, :-1]
        chosen = logits.log_softmax(-1).gather(2, inputs[:, 1:, None]).squeeze(2)
        for item, row in zip(batch, chosen, strict=True):
            found.append(row[len(item.prompt) - 1 : len(item.ids) - 1])
    return found


@torch.no_grad()
def with_trl(model: Any, items: list[Item], batch_size: int) -> list[Tensor]:
    """In order, prompts to the left and responses to the right, as `_get_per_token_logps_and_entropies`."""
    found = []
    pad = partial(pad_sequence, batch_first=True, padding_value=-1)
    for batch in in_order(items, batch_size):
        prompts = pad([torch.tensor(item.prompt) for item in batch], padding_side="left")
        responses = pad([torch.tensor(item.completion) for item in batch])
        ids = torch.cat([prompts, responses], 1)
        real = ids >= 0
        labels = ids.masked_fill(~real, -100)
        labels[:, : prompts.shape[1]] = -100
        output = model(
            input_ids=ids.clamp_min(0), attention_mask=real.long(), labels=labels, fused_lm_head=True
        )
        for item, row in zip(batch, output.log_probs[:, -responses.shape[1] :], strict=True):
            found.append(row[: len(item.completion)])
    return found


def ours(model: Any, items: list[Item], batch_size: int, share: bool = True) -> list[Tensor]:
    """As `ImplicitPRM.score` has it done."""
    return scored(HFBackend(model, batch_size=batch_size, share_prompts=share), items)


def scored(backend: HFBackend, items: list[Item]) -> list[Tensor]:
    """By a backend that keeps count."""
    marks = [[False] * len(item.prompt) + [True] * len(item.completion) for item in items]
    return [torch.from_numpy(row) for row in backend.token_log_probs([item.ids for item in items], marks)]


def in_order(items: list[Item], batch_size: int) -> Iterator[list[Item]]:
    """Batches in the order of the file."""
    for at in range(0, len(items), batch_size):
        yield items[at : at + batch_size]


def compare(model: Any, items: list[Item], batch_size: int, repeats: int) -> str:
    """Cells of the table: tokens a second, the ratios, and how much is computed."""
    backend = HFBackend(model, batch_size=batch_size)
    found, expected = scored(backend, items), official(model, items, batch_size)
    for other in (found, with_trl(model, items, batch_size)):
        worst = max(float((a - b).abs().max()) for a, b in zip(other, expected, strict=True))
        assert worst < 1e-3, f"log-probs differ by {worst}"
    calls: dict[str, Callable[..., object]] = {
        "ours": ours,
        "official": official,
        "TRL": with_trl,
        "unshared": partial(ours, share=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats):
        for name in list(calls) if repeat % 2 else reversed(calls):
            start = time.process_time()
            calls[name](model, items, batch_size)
            seconds[name].append(time.process_time() - start)

    def speed_up(name: str) -> Ratio:
        return median_interval([a / b for a, b in zip(seconds[name], seconds["ours"], strict=True)])

    tokens = sum(len(item.ids) for item in items)
    theirs = sum(len(batch) * max(len(item.ids) for item in batch) for batch in in_order(items, batch_size))
    cells = [
        f"{batch_size}",
        f"{tokens / float(np.median(seconds['ours'])):.0f}",
        *(f"{speed_up(name)}" for name in ("official", "TRL", "unshared")),
        f"{backend.workload.padding_waste:.1%}, {1 - tokens / theirs:.1%}",
        f"{backend.workload.computed / tokens:.2f}, {theirs / tokens:.2f}",
    ]
    return " | ".join(cells)


HEADER = (
    "| rows | batch | tokens/s, ours | ours / official | ours / TRL | ours / ours without shared prompts "
    "| padding: ours, official | positions a token: ours, official |\n" + "|---" * 8 + "|"
)


def solutions(questions: int) -> list[dict[str, str]]:
    """GSM8K questions, each with four solutions by models."""
    path = get("gsm8k-model-solutions") / "gsm8k_example_model_solutions.jsonl"
    with path.open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in itertools.islice(lines, questions)]
    return [
        {"prompt": entry["question"] + "\n", "completion": entry[solver]["solution"]}
        for entry in entries
        for solver in SOLVERS
    ]


def drawn(length: int, prompt: int, responses: int, rows: int) -> list[Item]:
    """Random tokens; the responses have `length` on average, and half of it as standard deviation."""
    rng = np.random.default_rng(length)
    sigma = math.sqrt(math.log(1.25))
    items = []
    for _ in range(max(1, rows // responses)):
        shared = tuple(rng.integers(0, SMALL.vocab_size, prompt).tolist())
        for size in rng.lognormal(math.log(length) - sigma**2 / 2, sigma, responses):
            items.append(Item(shared, tuple(rng.integers(0, SMALL.vocab_size, max(1, int(size))).tolist())))
    return items


def real(options: argparse.Namespace) -> Iterator[tuple[str, Any, int, list[Item]]]:
    """The real rows with every batch size."""
    name = options.model or str(get("smollm2-135m"))
    model = load_model(name, dtype=torch.float32).eval()
    add_fused_lm_head(model)
    rows = encode_rows(solutions(options.questions), load_tokenizer(name))
    items = [Item(row.prompt_ids, row.completion_ids) for row in rows]
    for batch in options.batches:
        yield f"{len(items)} x GSM8K", model, batch, items


def grid(options: argparse.Namespace) -> Iterator[tuple[str, Any, int, list[Item]]]:
    """Every length with every batch size."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(SMALL).eval()
    add_fused_lm_head(model)
    for length in options.lengths:
        for batch in options.batches:
            items = drawn(length, options.prompt, max(8, batch), rows=max(16, batch))
            yield f"{len(items)} x {length}", model, batch, items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder with a model; default: SmolLM2-135M")
    parser.add_argument("--questions", type=int, default=4, help="of GSM8K, each with four solutions")
    parser.add_argument("--grid", action="store_true", help="a small model, every length with every batch")
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--batches", type=int, nargs="+", help="default: 8; of the grid 1, 8 and 64")
    parser.add_argument("--prompt", type=int, default=200, help="tokens of the grid's prompts")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.repeats < 6:
        parser.error("--repeats must be at least 6, for a 95% interval")
    options.batches = options.batches or ([1, 8, 64] if options.grid else [8])
    torch.set_num_threads(options.threads)
    print(f"{options.threads} thread(s), torch {torch.__version__}, float32, load {os.getloadavg()[0]:.1f}\n")
    print(HEADER, flush=True)
    for label, model, batch, items in grid(options) if options.grid else real(options):
        print(f"| {label} | {compare(model, items, batch, options.repeats)} |", flush=True)


if __name__ == "__main__":
    main()
