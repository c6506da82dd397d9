"""Tiny language models: trained on blocks of tokens, and sampled from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmlab import pack
from lmlab.evaluation import perplexity
from lmlab.models import build_model
from lmlab.training import TrainingConfig, TrainingResult, train
from toedit.reproduce.texts import human_texts

SAMPLED_AT_ONCE = 128
_CHARACTERS_A_TOKEN = 4
_AFTER_THE_END = 1  # cut off; not the end itself, which transformers would take for padding in the prompt


class TinyConfig(BaseModel):
    """A tiny model, how it is trained, and how text is drawn from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(gt=0)
    context_length: int = Field(gt=1)
    shape: dict[str, Any]
    training: TrainingConfig
    budget: int = Field(gt=0, description="tokens of training text, the same for every arm")
    top_p: float = Field(gt=0, le=1, description="of the nucleus that text is drawn from, by either writer")
    test_blocks: int = Field(gt=0)


def trained(
    config: TinyConfig,
    blocks: torch.Tensor,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[PreTrainedModel, TrainingResult]:
    """A model trained on the blocks (n, context_length); the seed fixes weights and order."""
    settings = {"vocab_size": config.vocab_size} | config.shape
    model = build_model(settings, seed)
    training = config.training.model_copy(update={"seed": seed, "data_seed": seed})
    return model, train(model, blocks, training, on_progress=on_progress)


def sampled(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: TinyConfig, tokens: int, seed: int
) -> list[str]:
    """Texts of at least `tokens` tokens together, drawn from the nucleus of `top_p`.

    Each begins after an end of text and goes on to the next, or to the end of the context.
    """
    end = tokenizer.eos_token_id
    texts: list[str] = []
    generator: Any = model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while tokens > 0:
            rows = generator.generate(
                torch.full((SAMPLED_AT_ONCE, 1), end),
                attention_mask=torch.ones((SAMPLED_AT_ONCE, 1)),
                do_sample=True,
                top_p=config.top_p,
                top_k=0,
                max_new_tokens=config.context_length - 1,
                eos_token_id=end,
                pad_token_id=_AFTER_THE_END,
            )
            for row in rows[:, 1:].tolist():
                ids = row[: row.index(end)] if end in row else row
                texts.append(str(tokenizer.decode(ids)))
                tokens -= len(tokenizer(texts[-1], add_special_tokens=False).input_ids) + 1
    return texts


def human_for(
    config: TinyConfig, corpus: str, tokenizer: PreTrainedTokenizerBase, seed: int = 0, spare: float = 0.0
) -> list[str]:
    """Training text of a corpus for one budget and a share to `spare`, about a context each."""
    characters, tokens = _CHARACTERS_A_TOKEN * config.context_length, round(config.budget * (1 + spare))
    return human_texts(corpus, "train", tokenizer, tokens, characters, seed)


def held_back_loss(
    model: PreTrainedModel,
    config: TinyConfig,
    corpus: str,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
) -> float:
    """Nats a token on the first `test_blocks` blocks of a split that nobody trains on."""
    blocks = pack(corpus, split, tokenizer, config.context_length)
    return perplexity(model, blocks.slice(0, min(len(blocks), config.test_blocks))).loss
