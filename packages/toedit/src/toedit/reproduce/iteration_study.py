"""T5: generations of tiny models, each trained on text that the one before wrote or edited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmlab.tokenizers import tokenizer_for
from tenfold import Trial, TrialContext
from toedit.config import OFF, EditConfig
from toedit.editor import Editor
from toedit.reproduce.texts import blocks_of
from toedit.reproduce.tiny import TinyConfig, held_back_loss, human_for, sampled, trained
from toedit.statistics import EditStats

REPLACE, ACCUMULATE, EDIT, EDIT_MOST, HUMAN = ARMS = ("replace", "accumulate", "edit", "edit-most", "human")
MOST = 0.125
"""The share of tokens that the paper's prior found easy enough: what "edit-most" edits."""

SPARE = 0.05
"""So much more text is edited than is learned from: an edit seldom keeps the number of tokens."""


def iteration_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train generation after generation; returns for each `ppl`, and where text was edited the shares.

    Generation n + 1 learns from: its predecessor's text ("replace"), that and all before ("accumulate"), the
    text of generation n edited by its model ("edit", "edit-most"), or the same human text ("human").
    """
    tiny = TinyConfig(**trial.settings["tiny"])
    corpus, generations = trial.settings["corpus"], trial.settings["generations"]
    tokenizer = tokenizer_for(corpus, tiny.vocab_size)
    edits = trial.arm in (EDIT, EDIT_MOST)
    texts = human_for(tiny, corpus, tokenizer, spare=SPARE if edits else 0.0)
    found: dict[str, list[Any]] = {"ppl": [], "candidates": [], "changed": []}
    for generation in range(generations):
        seed = 1000 * trial.seed + generation
        count = tiny.budget * (1 + generation if trial.arm == ACCUMULATE else 1)
        blocks = blocks_of(texts, tokenizer, tiny.context_length, count)
        model, _ = trained(tiny, blocks, seed, _within(context, generation, generations))
        found["ppl"].append(float(np.exp(held_back_loss(model, tiny, corpus, "valid", tokenizer))))
        context.log(generation + 1, ppl=found["ppl"][-1])
        if generation + 1 < generations:
            if trial.arm in (REPLACE, ACCUMULATE):
                own = sampled(model, tokenizer, tiny, tiny.budget, seed)
                texts = own if trial.arm == REPLACE else texts + own
            elif edits:
                texts, stats = edited_by(model, tokenizer, tiny, texts, seed, most=trial.arm == EDIT_MOST)
                found["candidates"].append(stats.candidate_rate)
                found["changed"].append(stats.change_rate)
    return found


def iteration_metrics(results: Mapping[Trial, Mapping[str, Any]]) -> dict[str, list[float]]:
    """Slopes of log PPL a generation, a sample a seed; for arms that edit, their sizes."""
    metrics: dict[str, list[float]] = {}
    for trial, result in results.items():
        generation = np.arange(len(result["ppl"]))
        slope = float(np.polyfit(generation, np.log(result["ppl"]), 1)[0])
        name = trial.arm.replace("-", "_")
        metrics.setdefault(f"slope_{name}", []).append(slope)
        metrics.setdefault(f"slope_size_{name}", []).append(abs(slope))
    return metrics


def edited_by(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tiny: TinyConfig,
    texts: list[str],
    seed: int,
    *,
    most: bool,
) -> tuple[list[str], EditStats]:
    """The texts edited by the official script's rule; `most` makes `MOST` of the tokens candidates."""
    length = tiny.context_length
    config = EditConfig.preset("official", window=length, overlap=length // 8, seed=seed)
    editor = Editor(model, tokenizer, config)
    if most:
        scored = editor.score(texts, config.replace(threshold=OFF))
        p = np.exp(np.concatenate([text.log_p for text in scored]).astype(np.float64))
        editor.config = config.replace(threshold=float(np.nanquantile(p, 1 - MOST)))
    results = editor.edit_batch(texts, range(len(texts)))
    return [result.text for result in results], sum((result.stats for result in results), EditStats())


def _within(context: TrialContext, generation: int, generations: int) -> Callable[[int, int], None]:
    return lambda done, total: context.progress(generation + done / total, generations)
