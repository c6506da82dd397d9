"""Train one arm as a language model, measure it far beyond its training length, then teach it passkeys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from fope.reproduce.arms import build
from fope.reproduce.passkey import PasskeyConfig, PasskeyTexts, scores, teach
from lmlab import PreparedCorpus, TokenBlocks, pack, prepare
from lmlab.evaluation import loss_by_position, perplexity_by_length
from lmlab.training import TrainingConfig, train
from tenfold import Trial, TrialContext

BYTES = 257  # of a byte-level tokenizer with no merge: the 256 bytes and the end of a text
MULTIPLES = (1, 2, 4, 8, 16)
GAINS = "gains"  # the stage of the sweep over the noise of the coefficients
FILLER_TOKENS = 4_000_000  # of the training text, for the passkey lessons


def train_arm(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train and measure one arm with one seed; runs in a process of its own.

    Returns `losses[split][length]` in nats, `positions` (losses by position of the longest windows) and,
    where the arm is taught, `passkey[length]` (a share found for each depth) and `lessons`.
    """
    settings = trial.settings
    length = settings["context_length"]
    lengths = [multiple * length for multiple in MULTIPLES]
    corpus = prepare(settings["corpus"], BYTES, length)
    model = build(
        settings["shape"] | {"vocab_size": len(corpus.tokenizer)},
        trial.arm,
        length,
        trial.seed,
        **settings["options"],
    )
    training = TrainingConfig(**settings["training"] | {"seed": trial.seed, "data_seed": trial.seed})
    train(
        model,
        corpus.train,
        training,
        valid_data=corpus.valid.slice(0, settings["curve_blocks"]),
        directory=context.checkpoint_dir / "language",
        on_evaluate=lambda step, entry: context.log(int(entry.pop("step")), **entry),
        on_progress=context.progress,
    )
    texts = evaluation_texts(corpus, settings["eval_tokens"], books=settings["books"])
    longest = texts["valid"][: len(texts["valid"]) // lengths[-1] * lengths[-1]].view(-1, lengths[-1])
    result: dict[str, Any] = {
        "losses": {name: losses_by_length(model, text, lengths) for name, text in texts.items()},
        "positions": loss_by_position(model, longest, batch_size=8).tolist(),
    }
    if settings["passkey"] is not None:
        config = PasskeyConfig(**settings["passkey"])
        result |= taught(model, corpus, lengths, config, trial.seed, context)
    return result


def evaluation_texts(corpus: PreparedCorpus, tokens: int, *, books: bool) -> dict[str, torch.Tensor]:
    """Running text of at most `tokens` tokens from each split that there is, and from the books."""
    splits: dict[str, TokenBlocks | None] = {"valid": corpus.valid, "heldout": corpus.heldout}
    if books:
        splits["books"] = pack("books", "heldout", corpus.tokenizer, corpus.context_length)
    return {
        name: torch.from_numpy(np.asarray(blocks.tokens[:tokens]).astype(np.int64))
        for name, blocks in splits.items()
        if blocks is not None
    }


def losses_by_length(model: PreTrainedModel, text: torch.Tensor, lengths: Sequence[int]) -> dict[str, float]:
    """Mean loss in nats at each window length."""
    found = perplexity_by_length(model, text, lengths)
    return {str(length): score.loss for length, score in found.items()}


def taught(
    model: PreTrainedModel,
    corpus: PreparedCorpus,
    lengths: Sequence[int],
    config: PasskeyConfig,
    seed: int,
    context: TrialContext,
) -> dict[str, Any]:
    """Teach passkeys at the training length; `lessons` it took and the shares found by length and depth."""
    texts = PasskeyTexts(corpus.tokenizer, np.asarray(corpus.train.tokens[:FILLER_TOKENS]))
    lessons = teach(
        model,
        texts,
        lengths[0],
        config,
        seed,
        directory=context.checkpoint_dir / "passkey",
        on_progress=context.progress,
    )
    questions = PasskeyTexts(corpus.tokenizer, np.asarray(corpus.valid.tokens))
    return {"lessons": lessons, "passkey": scores(model, questions, lengths, config)}
