"""The measures that a training run ends with and that `lmlab eval` takes of a saved model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lmlab.errors import SettingsError
from lmlab.evaluation import Perplexity, perplexity, perplexity_by_length
from lmlab.packing import TokenBlocks
from lmlab.passkey import DEPTHS, PasskeyScore, passkey, passkey_trials


class EvaluationConfig(BaseModel):
    """What is measured. Unknown keys and impossible values are errors that name the key.

    `max_blocks` bounds the text of each split, 0 takes all of it. `lengths` are contexts for the perplexity
    by length, `passkey_lengths` for the passkey retrieval; both may be longer than those trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(default=16, gt=0)
    max_blocks: int = Field(default=0, ge=0)
    lengths: tuple[int, ...] = ()
    passkey_lengths: tuple[int, ...] = ()
    passkey_depths: tuple[float, ...] = DEPTHS
    passkey_trials: int = Field(default=10, gt=0)
    seed: int = Field(default=0, ge=0)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    splits: Mapping[str, TokenBlocks],
    config: EvaluationConfig,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All measures of `config`, as JSON can hold them.

    `splits` gives under each split's name `{"loss", "ppl", "bits_per_byte", "tokens"}` (see
    `lmlab.evaluation.Perplexity`) and `by_length`, the same for each length; `passkey` a list of
    `lmlab.passkey.PasskeyScore`. `on_progress(done, total)` counts them.
    Raises `SettingsError` as `check` does.
    """
    check(tokenizer, splits, config)
    measured: dict[str, Any] = {"splits": {}, "passkey": []}
    places = list(product(config.passkey_lengths, config.passkey_depths))
    total = len(splits) * (1 + len(config.lengths)) + len(places)
    done = count(1)

    def counted(score: Perplexity | PasskeyScore) -> dict[str, Any]:
        if on_progress is not None:
            on_progress(next(done), total)
        return asdict(score)

    for name, blocks in splits.items():
        blocks = _first(blocks, config.max_blocks)
        text = torch.from_numpy(np.asarray(blocks.tokens).astype(np.int64))
        measured["splits"][name] = counted(perplexity(model, blocks, config.batch_size)) | {
            "by_length": {
                str(length): counted(perplexity_by_length(model, text, [length])[length])
                for length in config.lengths
            }
        }
    for length, depth in places:
        (score,) = passkey(
            model, tokenizer, [length], [depth], trials=config.passkey_trials, seed=config.seed
        )
        measured["passkey"].append(counted(score))
    return measured


def check(
    tokenizer: PreTrainedTokenizerBase, splits: Mapping[str, TokenBlocks], config: EvaluationConfig
) -> None:
    """Raise `SettingsError` for a length that a text is too short for, or too short for a passkey.

    It takes little time, so that a run of days can ask before it begins.
    """
    for name, blocks in splits.items():
        tokens = len(_first(blocks, config.max_blocks).tokens)
        for length in config.lengths:
            if not 2 <= length <= tokens:
                raise SettingsError(f"length {length} is not between 2 and the {tokens} tokens of {name}")
    for length in config.passkey_lengths:
        for depth in config.passkey_depths:
            list(passkey_trials(tokenizer, length, depth, config.passkey_trials, seed=config.seed))


def _first(blocks: TokenBlocks, count: int) -> TokenBlocks:
    return blocks.slice(0, min(len(blocks), count)) if count else blocks


def load_model(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A saved model and its tokenizer, on the accelerator if there is one.

    Raises `SettingsError` if the folder holds no model that transformers can read.
    """
    if not (Path(folder) / "config.json").is_file():
        raise SettingsError(f"{folder} holds no model: there is no {Path(folder) / 'config.json'}")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (ValueError, OSError) as error:
        raise SettingsError(f"the model in {folder} cannot be read: {error}") from error
    if torch.accelerator.is_available():
        torch.nn.Module.to(model, torch.accelerator.current_accelerator())
    return model, tokenizer
