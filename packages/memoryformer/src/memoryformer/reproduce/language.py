"""Train one arm as a language model at one learning rate, and measure what the claims ask."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from lmlab import PreparedCorpus, TokenBlocks, prepare
from lmlab.accounting import count_parameters, forward_flops
from lmlab.evaluation import perplexity
from lmlab.packing import pack
from lmlab.training import TrainingConfig, train
from memoryformer import bucket_stats, quantize_tables_
from memoryformer.reproduce.arms import Shape, build
from tenfold import Trial, TrialContext

FLIP_BLOCKS = 64  # bfloat16 is slow on most CPUs


def train_arm(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train and measure one arm with one seed and learning rate; runs in a process of its own.

    Returns losses in nats a token: `choice_loss` (chooses the rate), `losses[text]` (judges), beside
    `bits_per_byte`, `parameters`, `flops` of a token's training and `tokens_per_second`; where the trial is
    `inspected`, `int8_loss` and the bucket use of the trained model (see `bucket_use`).
    """
    settings = trial.settings
    corpus = prepare(settings["corpus"], settings["vocab_size"], settings["context_length"])
    choice, judged = corpus.valid.halves(settings["choice_blocks"], settings["test_blocks"])
    shape = Shape(**settings["shape"])
    model = build(trial.arm, shape, len(corpus.tokenizer), settings["context_length"], trial.seed)
    forward = forward_flops(model, 1, settings["context_length"]) / settings["context_length"]
    outcome = train(
        model,
        corpus.train,
        TrainingConfig(
            **settings["training"]
            | {"learning_rate": settings["learning_rate"], "seed": trial.seed, "data_seed": trial.seed}
        ),
        valid_data=choice,
        directory=context.checkpoint_dir,
        on_evaluate=lambda step, entry: context.log(int(entry.pop("step")), **entry),
        on_progress=context.progress,
    )
    found = {name: perplexity(model, text) for name, text in texts(corpus, judged, settings["books"]).items()}
    result: dict[str, Any] = {
        "choice_loss": outcome.curve[-1]["valid_loss"],
        "losses": {name: score.loss for name, score in found.items()},
        "bits_per_byte": {name: score.bits_per_byte for name, score in found.items()},
        "parameters": count_parameters(model),
        "flops": 3 * forward,  # the backward pass has two products for each one of the forward pass
        "tokens_per_second": outcome.tokens_per_second,
    }
    if settings["inspected"]:
        result |= inspect(model, corpus, judged, settings["bucket_tokens"])
    return result


def texts(corpus: PreparedCorpus, judged: TokenBlocks, books: bool) -> dict[str, TokenBlocks]:
    """The texts that judge: validation text, as much of the held-out library, and of the books if there."""
    found = {"valid": judged}
    if corpus.heldout is not None:
        found["heldout"] = corpus.heldout
    if books:
        found["books"] = pack("books", "heldout", corpus.tokenizer, corpus.context_length)
    return {name: blocks.slice(0, min(len(blocks), len(judged))) for name, blocks in found.items()}


def inspect(
    model: PreTrainedModel, corpus: PreparedCorpus, judged: TokenBlocks, tokens: int
) -> dict[str, Any]:
    """How evenly a trained MemoryFormer uses its buckets, then its loss with int8 tables."""
    buckets = bucket_use(model, held_back(corpus, tokens))
    quantize_tables_(model, "int8")
    return {"buckets": buckets, "int8_loss": perplexity(model, judged).loss}


def bucket_use(model: PreTrainedModel, blocks: torch.Tensor) -> dict[str, dict[str, Any]]:
    """For each memory layer `BucketStats.summary`, with the codes that bfloat16 flips, and two histograms.

    Layers are named `block1_qkv`, `block1_layer1`, `block1_layer2`, `block2_qkv` and so on; `first` and
    `last` are the counts of the rows of the layer's first and last table.
    """
    flips = bucket_stats(model, blocks[:FLIP_BLOCKS], other=torch.bfloat16)
    use = {}
    for name, stats in bucket_stats(model, blocks).items():
        _, _, block, _, layer = name.split(".")
        histograms = {"first": stats.counts[0].tolist(), "last": stats.counts[-1].tolist()}
        rate = {"flip_rate": flips[name].summary()["flip_rate"]}
        use[f"block{int(block) + 1}_{layer.removesuffix('_proj')}"] = stats.summary() | rate | histograms
    return use


def held_back(corpus: PreparedCorpus, tokens: int) -> torch.Tensor:
    """Blocks that no model was trained on, (blocks, context_length): validation text, then held-out."""
    text = np.concatenate([split.tokens for split in (corpus.valid, corpus.heldout) if split is not None])
    length = corpus.context_length
    whole = min(tokens, len(text)) // length * length
    return torch.from_numpy(text[:whole].astype(np.int64)).view(-1, length)
