"""E8: a model is tuned on half of some questions: does the audit find them, and if they are rewritten?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from medxpertqa.construct.rewriting import rewrite_by_rule
from medxpertqa.datasets import bank
from medxpertqa.leakage import auc
from medxpertqa.memory import CausalMemory
from medxpertqa.reproduce.claims import MODEL
from medxpertqa.reproduce.server import WEIGHTS
from tenfold import Trial, TrialContext
from tenfold.data import get

DRAWS = 2000


class LeakConfig(BaseModel):
    """How many questions, and how the model is tuned on the first half of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: int = Field(ge=4, multiple_of=2)
    tokens: int = Field(gt=16, description="of each question that are trained on and audited")
    epochs: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0)


def leak_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Tune, audit the questions as published and rewritten, and return the AUCs with the scores."""
    config = LeakConfig(**trial.settings)
    model, tokenizer = load()
    pairs = originals_and_rewritings(config.items)
    cut = [[first_tokens(tokenizer, text, config.tokens) for text in pair] for pair in pairs]
    tune(model, tokenizer, [before for before, _ in cut[::2]], config, context)
    memory = CausalMemory(model, tokenizer)
    scores: dict[str, list[list[float]]] = {"perplexity": [], "ngrams": []}
    for done, pair in enumerate(cut):
        context.progress(done, len(cut))
        audits = [memory.audit_text(text) for text in pair]
        scores["perplexity"].append([-audit.perplexity for audit in audits])
        scores["ngrams"].append([audit.ngram_accuracy for audit in audits])
    return {"scores": scores} | {
        f"leak_auc_{name}{end}": value
        for name, values in scores.items()
        for end, value in fall(np.array(values)).items()
    }


def fall(scores: np.ndarray) -> dict[str, float]:
    """AUCs before and after rewriting, and the bootstrap interval of the fall; items stay paired.

    `scores` (items, 2) are higher for what the model seems to know, before and after; even items were leaked.
    """
    seen, unseen = scores[::2], scores[1::2]
    rng = np.random.default_rng(0)
    falls = []
    for _ in range(DRAWS):
        a, b = (part[rng.integers(len(part), size=len(part))] for part in (seen, unseen))
        falls.append(_auc(a, b, 0) - _auc(a, b, 1))
    low, high = np.quantile(falls, [0.025, 0.975])
    before, after = (_auc(seen, unseen, column) for column in (0, 1))
    return {"": before, "_rewritten": after, "_fall_low": float(low), "_fall_high": float(high)}


def _auc(seen: np.ndarray, unseen: np.ndarray, column: int) -> float:
    return auc(seen[:, column].tolist(), unseen[:, column].tolist())


def originals_and_rewritings(items: int) -> list[tuple[str, str]]:
    """The stems of the first MedQA questions that the rule can rewrite, with their rewritings."""
    pairs = []
    for question in bank("medqa"):
        made = rewrite_by_rule(question)
        if not made.problems:
            pairs.append((question.stem, made.question.stem))
        if len(pairs) == items:
            break
    return pairs


def first_tokens(tokenizer: Any, text: str, count: int) -> str:
    """The text of the first `count` tokens."""
    return str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)[:count]))


def load() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct, its 4-bit weights expanded to float32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = get(MODEL)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=WEIGHTS, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS)


def tune(model: Any, tokenizer: Any, texts: Sequence[str], config: LeakConfig, context: TrialContext) -> None:
    """Train the whole model on the texts with AdamW, in the same order on every machine."""
    import torch

    torch.manual_seed(0)
    order = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    rows = [torch.tensor(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    model.train()
    step = 0
    for _ in range(config.epochs):
        places = order.permutation(len(rows))
        for start in range(0, len(rows), config.batch_size):
            batch = [rows[place] for place in places[start : start + config.batch_size]]
            ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
            labels = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
            loss = model(input_ids=ids, attention_mask=(labels >= 0).long(), labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            context.log(step, loss=loss.item())
            step += 1
    model.eval()
