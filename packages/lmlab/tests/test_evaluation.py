"""Perplexity against models whose predictions are known, and against plain PyTorch."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lmlab import prepare
from lmlab.evaluation import evaluating, loss_by_position, perplexity, perplexity_by_length, token_losses
from lmlab.models import build_model

SETTINGS = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "attention_dropout": 0.5,  # so that an evaluation in training mode would show
}


class Fixed(nn.Module):
    """After token t, token t + 1 has probability `p` and the other `size` - 1 tokens share the rest."""

    def __init__(self, size: int, p: float) -> None:
        super().__init__()
        log = torch.full((size, size), math.log((1 - p) / (size - 1)))
        for token in range(size):
            log[token, (token + 1) % size] = math.log(p)
        self.table = nn.Parameter(log)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 50, (240,), generator=torch.Generator().manual_seed(0))


def test_perplexity_of_a_known_distribution() -> None:
    counting = torch.arange(60).remainder(10).view(5, 12)
    score = perplexity(Fixed(10, 0.25), counting, batch_size=2)
    assert score.ppl == pytest.approx(4.0, rel=1e-6)
    assert score.loss == pytest.approx(math.log(4.0), rel=1e-6)
    assert score.tokens == 5 * 11
    assert score.bits_per_byte is None
    still = torch.zeros(3, 8, dtype=torch.long)  # token 0 again and again has probability 0.75 / 9
    assert perplexity(Fixed(10, 0.25), still).ppl == pytest.approx(12.0, rel=1e-6)


def test_perplexity_is_that_of_the_models_own_loss(tokens: torch.Tensor) -> None:
    model = build_model(SETTINGS, 0).eval()
    blocks = tokens.view(15, 16)
    with torch.no_grad():
        expected = model(input_ids=blocks, labels=blocks).loss.item()
    for batch_size in (1, 4, 100):
        assert perplexity(model, blocks, batch_size).loss == pytest.approx(expected, rel=1e-5)


def test_bits_per_byte(small_corpus: str) -> None:
    corpus = prepare(small_corpus, 400, 32)
    blocks = corpus.valid
    uniform = Fixed(400, 1 / 400)  # every token costs log2(400) bits
    score = perplexity(uniform, blocks)
    text = str(corpus.tokenizer.decode(blocks.tokens.tolist(), skip_special_tokens=True))
    size = len(text.encode())
    assert score.bits_per_byte == pytest.approx(math.log2(400) * len(blocks) * 32 / size, rel=1e-5)


def test_perplexity_by_length_reads_windows_that_do_not_overlap(tokens: torch.Tensor) -> None:
    model = build_model(SETTINGS, 0).eval()
    found = perplexity_by_length(model, tokens, [2, 7, 64], batch_tokens=100)
    assert list(found) == [2, 7, 64]
    for length, score in found.items():
        losses = []
        for start in range(0, len(tokens) - length + 1, length):
            window = tokens[None, start : start + length]
            with torch.no_grad():
                losses.append(model(input_ids=window, labels=window).loss.item())
        assert score.tokens == len(losses) * (length - 1)
        assert score.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_loss_by_position_has_the_mean_of_the_perplexity(tokens: torch.Tensor) -> None:
    model = build_model(SETTINGS, 0)
    blocks = tokens.view(15, 16)
    positions = loss_by_position(model, blocks, batch_size=4)
    assert positions.shape == (15,)
    assert positions.mean().item() == pytest.approx(perplexity(model, blocks).loss, rel=1e-6)
    with evaluating(model):
        assert positions[3].item() == pytest.approx(token_losses(model, blocks)[:, 3].mean().item(), rel=1e-5)


def test_a_model_is_left_as_it_was(tokens: torch.Tensor) -> None:
    model = build_model(SETTINGS, 0).train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    cached = model.config.use_cache
    perplexity(model, tokens.view(15, 16))
    assert [module.training for module in model.modules()] == modes
    assert model.config.use_cache is cached
    assert all(parameter.grad is None for parameter in model.parameters())


def test_lengths_that_cannot_be(tokens: torch.Tensor) -> None:
    model = Fixed(50, 0.5)
    for length in (1, 241):
        with pytest.raises(ValueError, match=f"length {length} is not between 2 and the text's 240 tokens"):
            perplexity_by_length(model, tokens, [length])
    with pytest.raises(ValueError, match="context length of 2 or more"):
        perplexity(model, tokens[:, None])
