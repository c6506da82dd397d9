"""What converting a trained model costs, without any fine-tuning: SmolLM2-135M on its first tokens of a text.

SmolLM2-135M-Instruct has heads of width 64, theta 1e5 and a training length of 8192: 12 of its 32 channel
pairs never complete a cycle and are clipped.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from fope.hf import convert_to_fope
from lmlab import documents
from lmlab.evaluation import perplexity
from tenfold import Trial, TrialContext
from tenfold.data import get

TRAIN_LENGTH = 8192

CONVERSIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "cf": {"series": False, "zero_sin": 0.0},
        "fope": {},  # the defaults of `convert_to_fope`
        "fope_unclipped": {"clip": False, "zero_sin": 0.0},
        "cf_raw_phase": {"series": False, "zero_sin": 1.0, "preserve": False},
        "raw_phase": {"zero_sin": 1.0, "preserve": False},  # the released code's padding
    }
)
"""Ways to convert, as options of `convert_to_fope`."""


def conversion_costs(trial: Trial, context: TrialContext) -> dict[str, float]:
    """NLL of the model as it is (`smollm2_rope_<text>`, nats) and what each conversion adds to it."""
    model, tokenizer = load()
    texts = {"docs": first_document("docs")} | (
        {"books": first_document("books")} if trial.settings["books"] else {}
    )
    blocks = {name: first_tokens(tokenizer, text, trial.settings["tokens"]) for name, text in texts.items()}
    before = {name: perplexity(model, block).loss for name, block in blocks.items()}
    costs = {f"smollm2_rope_{name}": loss for name, loss in before.items()}
    for done, (conversion, options) in enumerate(CONVERSIONS.items()):
        context.progress(done, len(CONVERSIONS))
        converted = convert_to_fope(copy.deepcopy(model), train_length=TRAIN_LENGTH, **options)
        for name, block in blocks.items():
            costs[f"smollm2_{conversion}_cost_{name}"] = perplexity(converted, block).loss - before[name]
    return costs


def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct, its 4-bit weights expanded to float32, and its tokenizer."""
    folder = get("smollm2-135m")
    (file,) = folder.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder, gguf_file=file.name)


def first_document(corpus: str, characters: int = 4000) -> str:
    """The first document of the held-out split that is at least that long: prose, not a stub."""
    return next(row["text"] for row in documents(corpus, "heldout") if len(row["text"]) >= characters)


def first_tokens(tokenizer: PreTrainedTokenizerBase, text: str, count: int) -> torch.Tensor:
    """The first `count` tokens of a text: shape (1, count)."""
    return tokenizer(text, return_tensors="pt").input_ids[:, :count]
