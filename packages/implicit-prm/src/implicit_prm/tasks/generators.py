"""Generators of the tasks: tiny Llamas, fitted to demonstrations."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from implicit_prm.errors import ImplicitPRMError

WARM_UP, FLOOR = 0.03, 0.1
IGNORED = -100
SORTED_TOGETHER = 32


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of a generator, and how it is fitted: AdamW, one pass, cosine down to a tenth of the rate."""

    hidden_size: int = 64
    intermediate_size: int = 192
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    max_position_embeddings: int = 64
    batch_size: int = 128
    learning_rate: float = 4e-3


def build_generator(
    tokenizer: PreTrainedTokenizerBase, config: GeneratorConfig, seed: int
) -> LlamaForCausalLM:
    """A fresh model for this tokenizer; the seed fixes its weights."""
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_position_embeddings=config.max_position_embeddings,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(shape)


def fine_tune(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    demonstrations: Sequence[tuple[str, str]],
    config: GeneratorConfig,
    on_progress: Callable[[int, int], None] | None = None,
    is_enough: Callable[[int], bool] | None = None,
) -> list[float]:
    """Fit the model to (prompt, response) pairs, each once; returns the loss of every step.

    The loss is the cross-entropy of the response's tokens and the end token after it. Batches are pairs of
    like length. `is_enough`, asked after every step with the number of steps, may end it early.
    Raises `ImplicitPRMError` for fewer pairs than one batch has.
    """
    batches = _batches(demonstrations, config.batch_size)
    steps = len(batches)
    if not steps:
        raise ImplicitPRMError(
            f"{len(demonstrations)} demonstrations; one batch alone takes {config.batch_size}"
        )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    losses = []
    model.train()
    for step, batch in enumerate(batches):
        input_ids, labels = _tensors(batch, tokenizer)
        logits = model(input_ids=input_ids, attention_mask=input_ids != tokenizer.pad_token_id).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if on_progress is not None:
            on_progress(step + 1, steps)
        if is_enough is not None and is_enough(step + 1):
            break
    model.eval()
    return losses


def _rate(step: int, steps: int) -> float:
    warm = WARM_UP * steps
    falling = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / warm) * falling if warm else falling


def _batches(pairs: Sequence[tuple[str, str]], size: int) -> list[list[tuple[str, str]]]:
    """Whole batches in random order, of pairs sorted by length among some that follow each other."""
    found = []
    for start in range(0, len(pairs), SORTED_TOGETHER * size):
        part = sorted(pairs[start : start + SORTED_TOGETHER * size], key=lambda pair: len("".join(pair)))
        batches = [part[first : first + size] for first in range(0, len(part) - size + 1, size)]
        random.Random(start).shuffle(batches)
        found += batches
    return found


def _tensors(
    pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, int64 [B, T], padded on the right."""
    prompts = tokenizer([prompt for prompt, _ in pairs]).input_ids
    responses = tokenizer([response for _, response in pairs]).input_ids
    end = tokenizer.eos_token_id
    rows = [[*prompt, *response, end] for prompt, response in zip(prompts, responses, strict=True)]
    length = max(map(len, rows))
    input_ids = torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows])
    labels = input_ids.masked_fill(input_ids == tokenizer.pad_token_id, IGNORED)
    for row, prompt in zip(labels, prompts, strict=True):
        row[: len(prompt)] = IGNORED
    return input_ids, labels
