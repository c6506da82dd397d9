"""Perplexity: of a text, by context length and by position.

Every figure is a mean over predicted tokens. The first token of a block (or window) has nothing before
it and is never predicted: a block of n tokens gives n - 1 predictions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from lmlab.batching import Blocks, block_length, take


@dataclass(frozen=True)
class Perplexity:
    """`loss` in nats a predicted token, `ppl` = exp(loss), and how many `tokens` were predicted.

    `bits_per_byte` is what the model would need to store the text, for comparing tokenizers: the loss in
    bits, times the tokens of the blocks, divided by their bytes. The tokens that are not predicted (one a
    block) are charged the mean loss of the others, because their bytes are in the denominator.
    It is None when the blocks do not say how many bytes of text they hold (`num_bytes`).
    """

    loss: float
    ppl: float
    bits_per_byte: float | None
    tokens: int


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients, dropout or key-value cache inside; what was set is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    config = getattr(model, "config", None)
    use_cache = getattr(config, "use_cache", None)
    model.eval()
    if use_cache:
        config.use_cache = False  # type: ignore[union-attr]
    try:
        with torch.no_grad():
            yield
    finally:
        if use_cache:
            config.use_cache = use_cache  # type: ignore[union-attr]
        for module, training in modes:
            module.training = training


def token_losses(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """-log p(token t+1 | tokens 0..t) in nats, float32: shape (batch, length - 1) for (batch, length)."""
    device = next(model.parameters()).device
    tokens = tokens.to(device)
    logits = model(input_ids=tokens).logits[:, :-1]
    losses = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    return losses.view(tokens.shape[0], -1)


def perplexity(model: nn.Module, blocks: Blocks, batch_size: int = 16) -> Perplexity:
    """Perplexity over all blocks (a tensor of shape (blocks, length) or a data set of blocks).

    Under `torch.distributed` the batches are shared out among the processes and the sums are added up, so
    every process must call it and every process gets the same result.
    Raises `ValueError` when there is no block or the blocks are shorter than two tokens.
    """
    length = block_length(blocks)
    if length < 2:
        raise ValueError(
            "a block of one token predicts nothing: perplexity needs a context length of 2 or more"
        )
    total = _sum_over_processes(model, blocks, batch_size)
    tokens = len(blocks) * (length - 1)
    loss = total / tokens
    num_bytes = getattr(blocks, "num_bytes", None)
    bits = loss / math.log(2) * len(blocks) * length / num_bytes if num_bytes else None
    return Perplexity(loss, _exp(loss), bits, tokens)


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def _sum_over_processes(model: nn.Module, blocks: Blocks, batch_size: int) -> float:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, world = (
        (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    )
    starts = range(0, len(blocks), batch_size)
    total = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
    with evaluating(model):
        for first in range(0, len(starts), world):
            # A sharded model's forward is collective: a process without a batch of its own in the last
            # round computes batch 0 and does not count it.
            mine = first + rank
            start = starts[mine] if mine < len(starts) else 0
            batch = take(blocks, range(start, min(start + batch_size, len(blocks))))
            losses = token_losses(model, batch).double().sum()
            if mine < len(starts):
                total += losses
    if distributed:
        torch.distributed.all_reduce(total)
    return float(total)


def perplexity_by_length(
    model: nn.Module, tokens: torch.Tensor, lengths: Sequence[int], batch_tokens: int = 8192
) -> dict[int, Perplexity]:
    """Perplexity of one text read in windows of each length.

    `tokens` has shape (n,): running text. For each length the text is cut into n // length windows that do
    not overlap, and a window's tokens see that window alone; so longer lengths give more context on the same
    text (up to its end: the remainder, shorter than a window, is left out). About `batch_tokens` tokens go
    through the model at once.
    Raises `ValueError` for a length below 2 or longer than the text.
    """
    results = {}
    for length in lengths:
        if not 2 <= length <= tokens.numel():
            raise ValueError(f"length {length} is not between 2 and the text's {tokens.numel()} tokens")
        windows = tokens[: tokens.numel() // length * length].view(-1, length)
        results[length] = perplexity(model, windows, max(1, batch_tokens // length))
    return results


def loss_by_position(model: nn.Module, blocks: Blocks, batch_size: int = 16) -> torch.Tensor:
    """Mean loss in nats at each position: entry t is that of predicting token t+1 from tokens 0..t.

    Returns a float64 tensor of shape (length - 1,) on the CPU. Its mean is `perplexity(...).loss`.
    """
    total = torch.zeros(block_length(blocks) - 1, dtype=torch.float64)
    with evaluating(model):
        for start in range(0, len(blocks), batch_size):
            batch = take(blocks, range(start, min(start + batch_size, len(blocks))))
            total += token_losses(model, batch).double().sum(0).cpu()
    return total / len(blocks)
