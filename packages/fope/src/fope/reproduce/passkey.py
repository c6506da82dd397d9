"""Passkey retrieval for models of a few hundred thousand parameters (Mohtashami and Jaggi 2023, in small).

A text has ` ~key~51742` somewhere and again at its end, where the digits are to be found. The original
prompt is longer than the contexts here, and a tiny model has no such skill by itself: it is taught at the
training length, after the language model has been measured, and then asked at longer ones.

What makes a small rotary model learn it within some hundred steps, found by trials: a mark that the text
does not contain; text without digits; a key whose digits differ (the last digit then says which is next); a
loss on the text that goes on beside that on the digits; and among the texts some whose longer keys are said
several times, since they have more to learn from. Fewer digits first, or shorter texts first, did not help.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmlab.evaluation import evaluating
from lmlab.tokenizers import encode
from lmlab.training import TrainingConfig, train

MARK = "~"
NAME = "~key~"
TRAINING_SEED, CHECKING_SEED, SCORING_SEED = 20_000, 15_000, 10_000


class KeysInText(BaseModel):
    """A text that says one key of `digits` digits `keys` times; all but the first are to be predicted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digits: int = Field(ge=1, le=10)
    keys: int = Field(2, ge=2)


class PasskeyConfig(BaseModel):
    """How the skill is taught and asked for: always one key, `digits` long, and its question at the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arms: tuple[str, ...]
    curriculum: tuple[KeysInText, ...] = Field(description="kinds of text; a batch has equal shares of them")
    training: TrainingConfig = Field(description="of one lesson")
    lessons: int = Field(gt=0, description="at most; teaching ends when the skill is there")
    learned: float = Field(0.97, gt=0, le=1, description="share of the keys found at L that ends the lessons")
    language_weight: float = Field(ge=0, description="of the loss on the text beside that on the digits")
    digits: int = Field(5, ge=1, le=10)
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    trials: int = Field(gt=0, description="texts for each length and depth")


class PasskeyTexts:
    """Texts with keys, made of the tokens of a running text (shape (n,)) without digits and marks.

    Raises `ValueError` if the tokenizer has no single token for a digit or for the mark.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: NDArray[Any]) -> None:
        self.digits = np.array([_single(tokenizer, digit) for digit in "0123456789"])
        self.name, self.space = np.array(encode(tokenizer, [NAME])[0]), _single(tokenizer, " ")
        self.filler = text[~np.isin(text, [*self.digits, _single(tokenizer, MARK)])].astype(np.int64)

    def draw(
        self, length: int, digits: int, depths: Sequence[float], random: np.random.Generator
    ) -> NDArray[np.int64]:
        """A text of `length` tokens that says a key of `digits` digits at each of `depths` and at its end.

        A depth is a share of the filler: 0 is the beginning, 1 just before the end.
        """
        key = self.digits[random.permutation(10)[:digits]]
        needle = np.concatenate([[self.space], self.name, key])
        spare = length - (len(depths) + 1) * len(needle)
        if spare < 0:
            raise ValueError(f"{length} tokens have no room for {len(depths) + 1} keys of {digits} digits")
        start = random.integers(len(self.filler) - spare + 1)
        cuts = [round(depth * spare) for depth in sorted(depths)]
        pieces = np.split(self.filler[start : start + spare], cuts)
        return np.concatenate([part for piece in pieces for part in (piece, needle)])

    def curriculum(self, length: int, kinds: Sequence[KeysInText], count: int, seed: int) -> torch.Tensor:
        """`count` texts of these kinds in turn, their keys at any depths: (count, length), int64."""
        random = np.random.default_rng(seed)
        rows = []
        for number in range(count):
            kind = kinds[number % len(kinds)]
            rows.append(self.draw(length, kind.digits, random.uniform(size=kind.keys - 1).tolist(), random))
        return torch.from_numpy(np.stack(rows))


class PasskeyLoss(nn.Module):
    """A model whose loss is that on repeated digits plus `language_weight` times that on all the rest."""

    digits: torch.Tensor

    def __init__(self, model: PreTrainedModel, digits: NDArray[Any], language_weight: float) -> None:
        super().__init__()
        self.model = model
        self.language_weight = language_weight
        self.register_buffer("digits", torch.as_tensor(digits), persistent=False)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Both of shape (batch, length) and equal, as `lmlab.training.train` gives them."""
        logits, targets = self.model(input_ids=input_ids).logits[:, :-1], labels[:, 1:]
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        answer = self.repeated(targets)
        return {"loss": losses[answer].mean() + self.language_weight * losses[~answer].mean()}

    def repeated(self, tokens: torch.Tensor) -> torch.Tensor:
        """Where a digit stands that stood before in its row: only keys have digits, and theirs differ."""
        each: torch.Tensor = tokens[..., None] == self.digits
        return (each & (each.cumsum(1) > 1)).any(-1)


def teach(
    model: PreTrainedModel,
    texts: PasskeyTexts,
    length: int,
    config: PasskeyConfig,
    seed: int,
    *,
    directory: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Train `model` in place on texts of `length` tokens, lesson after lesson, until it finds the keys.

    Returns the number of lessons. How many a model takes is chance more than merit: the skill comes at once,
    after a plateau whose length depends on the seed.
    """
    training = config.training.model_copy(update={"seed": seed, "data_seed": seed})
    count = training.max_steps * training.batch_size
    objective = PasskeyLoss(model, texts.digits, config.language_weight)
    for lesson in range(config.lessons):
        rows = texts.curriculum(length, config.curriculum, count, seed=TRAINING_SEED + 100 * seed + lesson)
        train(objective, rows, training, directory=directory / str(lesson), on_progress=on_progress)
        found = scores(model, texts, [length], config, seed=CHECKING_SEED)[str(length)]
        if np.mean(found) >= config.learned:
            break
    return lesson + 1


def scores(
    model: PreTrainedModel,
    texts: PasskeyTexts,
    lengths: Sequence[int],
    config: PasskeyConfig,
    seed: int = SCORING_SEED,
) -> dict[str, list[float]]:
    """For each length the share of keys found, every digit right by greedy decoding, at each depth.

    The texts are the same for every model.
    """
    with evaluating(model):
        return {
            str(length): [_found(model, texts, length, depth, config, seed) for depth in config.depths]
            for length in lengths
        }


def _found(
    model: PreTrainedModel, texts: PasskeyTexts, length: int, depth: float, config: PasskeyConfig, seed: int
) -> float:
    random = np.random.default_rng([seed, length, round(depth * 1000)])
    rows = [texts.draw(length, config.digits, [depth], random) for _ in range(config.trials)]
    found = 0
    for batch in torch.from_numpy(np.stack(rows)).split(max(1, 16_384 // length)):
        # One pass with the right digits in place: greedy decoding gives the key exactly when each of its
        # digits is the most probable one after those before it.
        chosen = model(input_ids=batch, logits_to_keep=config.digits + 1).logits[:, :-1].argmax(-1)
        found += int((chosen == batch[:, -config.digits :]).all(-1).sum())
    return found / config.trials


def _single(tokenizer: PreTrainedTokenizerBase, character: str) -> int:
    (ids,) = encode(tokenizer, [character])
    if len(ids) != 1:
        raise ValueError(f"the passkey texts need one token for {character!r}; this tokenizer has {len(ids)}")
    return ids[0]
