"""Synthetic text: by a tiny model of the same text, or by SmolLM2 from the openings of human texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmlab.cache import built_once, file_fingerprint, fingerprint
from lmlab.tokenizers import encode, tokenizer_for
from tenfold import Trial, TrialContext
from tenfold.data import get
from toedit.reproduce.claims import PRIOR
from toedit.reproduce.texts import blocks_of, human_texts
from toedit.reproduce.tiny import TinyConfig, human_for, sampled, trained

OPENING = 160
"""Characters of a human text that SmolLM2 is shown: it chooses the subject, as Cosmopedia's seeds do."""

PROMPTS = {
    "books": "Here is the opening of a passage from a book:\n\n{0}\n\nWrite a passage for the same book.",
    "docs": "Here is the opening of the documentation of a Python library:\n\n{0}\n\nWrite documentation for "
    "the same library.",
}
"""The documentation's is that of any corpus but books."""

NEW_TOKENS = 224
AT_ONCE = 32
WRITER_SEED = 1_000_000
"""Apart from the seeds of the arms."""


def synthesis_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Write the text of `trial.settings`, or find it in the cache."""
    texts = synthetic_texts(trial.settings, context)
    return {"texts": len(texts), "characters": sum(map(len, texts))}


def synthetic_texts(settings: Mapping[str, Any], context: TrialContext | None = None) -> list[str]:
    """The texts of `writer` ("tiny" or "prior") for `corpus`, enough for the budget of `tiny`."""
    here = Path(__file__)
    code = file_fingerprint(here, *(here.with_name(f"{name}.py") for name in ("texts", "tiny")))
    key = fingerprint(dict(settings), code, torch.__version__, transformers.__version__)
    writer = {"tiny": _by_tiny_model, "prior": _by_prior}[settings["writer"]]

    def build(folder: Path) -> None:
        texts = writer(settings["corpus"], TinyConfig(**settings["tiny"]), context)
        (folder / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), "utf-8")

    folder = built_once("toedit-synthetic", f"{settings['corpus']}-{settings['writer']}", key, build)
    return json.loads((folder / "texts.json").read_text("utf-8"))


def _by_tiny_model(corpus: str, tiny: TinyConfig, context: TrialContext | None) -> list[str]:
    tokenizer = tokenizer_for(corpus, tiny.vocab_size)
    texts = human_for(tiny, corpus, tokenizer, WRITER_SEED)
    blocks = blocks_of(texts, tokenizer, tiny.context_length, tiny.budget)
    progress = context.progress if context is not None else None
    model, _ = trained(tiny, blocks, WRITER_SEED, progress)
    return sampled(model, tokenizer, tiny, tiny.budget, WRITER_SEED)


def _by_prior(corpus: str, tiny: TinyConfig, context: TrialContext | None) -> list[str]:
    tokenizer = tokenizer_for(corpus, tiny.vocab_size)
    openings = human_texts(corpus, "train", tokenizer, tiny.budget * 4, NEW_TOKENS * 4, WRITER_SEED)
    folder = get(PRIOR)
    (file,) = folder.glob("*.gguf")
    writer = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32).eval()
    chat: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file.name, padding_side="left")
    if chat.pad_token is None:
        chat.pad_token = chat.eos_token
    texts: list[str] = []
    written = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WRITER_SEED)
        for start in range(0, len(openings), AT_ONCE):
            new = _write_batch(writer, chat, corpus, openings[start : start + AT_ONCE], tiny.top_p)
            texts += new
            written += sum(len(ids) + 1 for ids in encode(tokenizer, new))
            if context is not None:
                context.progress(min(written, tiny.budget), tiny.budget)
            if written >= tiny.budget:
                break
    return texts


def _write_batch(writer: Any, chat: Any, corpus: str, openings: list[str], top_p: float) -> list[str]:
    prompts = [
        [{"role": "user", "content": PROMPTS.get(corpus, PROMPTS["docs"]).format(opening[:OPENING])}]
        for opening in openings
    ]
    inputs = chat.apply_chat_template(
        prompts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    rows = writer.generate(
        **inputs,
        do_sample=True,
        top_p=top_p,
        top_k=0,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=chat.pad_token_id,
    )
    return chat.batch_decode(rows[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
