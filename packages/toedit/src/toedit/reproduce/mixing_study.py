"""T4: tiny models trained on mixtures of human and synthetic text of an equal token budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lmlab.tokenizers import tokenizer_for
from tenfold import Trial, TrialContext
from toedit.reproduce.synthesis import synthetic_texts
from toedit.reproduce.texts import blocks_of
from toedit.reproduce.tiny import TinyConfig, held_back_loss, human_for, trained


def mixing_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train on `share` synthetic text, the rest human, of an equal budget; returns `ppl`, `training_loss`."""
    settings = trial.settings
    tiny = TinyConfig(**settings["tiny"])
    corpus, length = settings["corpus"], tiny.context_length
    tokenizer = tokenizer_for(corpus, tiny.vocab_size)
    written = synthetic_texts({key: settings[key] for key in ("writer", "corpus", "tiny")})
    synthetic = blocks_of(written, tokenizer, length, tiny.budget)
    human = blocks_of(human_for(tiny, corpus, tokenizer), tokenizer, length, tiny.budget)
    count = round(settings["share"] * len(human))
    blocks = torch.cat([human[: len(human) - count], synthetic[:count]])
    model, outcome = trained(tiny, blocks, trial.seed, context.progress)
    ppl = float(np.exp(held_back_loss(model, tiny, corpus, "valid", tokenizer)))
    return {"ppl": ppl, "training_loss": outcome.curve[-1]["loss"], "share": settings["share"]}


def mixing_metrics(results: Mapping[Trial, Mapping[str, Any]]) -> dict[str, list[float]]:
    """The numbers of the claims T4; the steps are those of means over seeds."""
    metrics: dict[str, list[float]] = {}
    for corpus in dict.fromkeys(trial.settings["of"] for trial in results):
        of = {
            (result["share"], trial.seed): result
            for trial, result in results.items()
            if trial.settings["of"] == corpus
        }
        shares, seeds = sorted({share for share, _ in of}), sorted({seed for _, seed in of})
        ppl = {share: [of[share, seed]["ppl"] for seed in seeds] for share in shares}
        loss = [np.mean([of[share, seed]["training_loss"] for seed in seeds]) for share in shares]
        some = [np.mean(ppl[share]) for share in shares if share > 0]
        metrics[f"ppl_ratio_{corpus}"] = [a / b for a, b in zip(ppl[1.0], ppl[0.0], strict=True)]
        metrics[f"ppl_steps_{corpus}"] = np.diff(some).tolist()
        metrics[f"training_loss_steps_{corpus}"] = np.diff(loss).tolist()
        metrics |= {f"ppl_{corpus}_{100 * share:.0f}": values for share, values in ppl.items()}
    return metrics
