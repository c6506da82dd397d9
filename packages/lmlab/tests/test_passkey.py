"""Passkey retrieval: what the texts hold, and scores of models that find the key, or cannot."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from lmlab.errors import SettingsError
from lmlab.models import build_model
from lmlab.passkey import FILLER, INTRODUCTION, NEEDLE, QUESTION, passkey, passkey_trials
from lmlab.tokenizers import train_tokenizer

DEPTHS = (0.0, 0.3, 1.0)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    texts = [INTRODUCTION, FILLER, NEEDLE.format(key=54321), QUESTION, *map(str, range(1000))]
    return train_tokenizer(texts * 3, 500)


class Retriever(nn.Module):
    """Predicts what followed the last place that ended in the same tokens, as many as possible: induction."""

    def __init__(self, size: int, sign: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, input_ids: torch.Tensor, logits_to_keep: int) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, self.size)
        for row, ids in enumerate(input_ids.tolist()):
            follower: dict[tuple[int, ...], int] = {}
            for at, token in enumerate(ids):
                follower |= {tuple(ids[at - n : at]): token for n in range(1, 9) if n <= at}
                suffixes = (tuple(ids[at + 1 - n : at + 1]) for n in range(8, 0, -1) if n <= at)
                guess = next((follower[suffix] for suffix in suffixes if suffix in follower), None)
                if guess is not None:
                    logits[row, at, guess] = 10.0 * self.sign
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])


def test_texts_have_the_length_and_hold_the_key_at_the_depth(tokenizer: PreTrainedTokenizerFast) -> None:
    for depth in DEPTHS:
        for trial in passkey_trials(tokenizer, 300, depth, trials=5):
            longest = max(map(len, trial.answers))
            assert len(trial.prompt) + longest == 300
            text = str(tokenizer.decode(trial.prompt, skip_special_tokens=True))
            key = str(tokenizer.decode(trial.answers[0])).strip()
            assert len(key) == 5
            assert key.isdigit()
            assert NEEDLE.format(key=key) in text
            assert text.startswith(INTRODUCTION)
            assert text.endswith(QUESTION)
            before, after = text[len(INTRODUCTION) : -len(QUESTION)].split(NEEDLE.format(key=key))
            assert len(before) / len(before + after) == pytest.approx(depth, abs=0.02)
            others = [str(tokenizer.decode(answer)).strip() for answer in trial.answers[1:]]
            assert len({key, *others}) == 8
            assert not any(other in text for other in others)


def test_texts_depend_on_the_seed_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    def texts(seed: int, trials: int) -> list[list[int]]:
        return [trial.prompt for trial in passkey_trials(tokenizer, 300, 0.5, trials, seed=seed)]

    torch.manual_seed(1)
    once = texts(0, 4)
    torch.manual_seed(2)
    assert texts(0, 4) == once
    assert texts(0, 2) == once[:2]
    assert texts(1, 4) != once
    assert len({tuple(text) for text in once}) == 4


def test_a_model_that_copies_finds_every_key(tokenizer: PreTrainedTokenizerFast) -> None:
    copies, avoids = Retriever(len(tokenizer)), Retriever(len(tokenizer), sign=-1.0)
    scores = passkey(copies, tokenizer, [256, 300], DEPTHS, trials=3)  # type: ignore[arg-type]
    assert [(score.length, score.depth) for score in scores] == [(n, d) for n in (256, 300) for d in DEPTHS]
    assert all((score.accuracy, score.mean_rank) == (1.0, 1.0) for score in scores)
    for score in passkey(avoids, tokenizer, [256], DEPTHS, trials=3):  # type: ignore[arg-type]
        assert score.accuracy == 0.0
        assert score.mean_rank > 4.5


def test_a_model_that_gives_no_numbers_ranks_the_key_last(tokenizer: PreTrainedTokenizerFast) -> None:
    broken = Retriever(len(tokenizer))

    def forward(input_ids: torch.Tensor, logits_to_keep: int) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.full((len(input_ids), logits_to_keep, len(tokenizer)), math.nan))

    broken.forward = forward  # type: ignore[method-assign]
    (score,) = passkey(broken, tokenizer, [256], [0.5], trials=3)  # type: ignore[arg-type]
    assert (score.accuracy, score.mean_rank) == (0.0, 8.0)


def test_a_model_without_knowledge_ranks_by_chance(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_model(
        {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        seed=0,
    )
    (score,) = passkey(model, tokenizer, [256], [0.5], trials=60)
    assert score.accuracy == 0.0
    # The mean of 60 ranks, uniform over 1..8, has the standard deviation sqrt(63 / 12 / 60) = 0.3.
    assert score.mean_rank == pytest.approx(4.5, abs=1.2)
    (again,) = passkey(model, tokenizer, [256], [0.5], trials=60)
    assert again == score


def test_accuracy_is_that_of_decoding_step_by_step(tokenizer: PreTrainedTokenizerFast) -> None:
    """A model that never says some of the tokens, so that some keys are found and some are not."""
    model = Retriever(len(tokenizer))
    forget = {number for number in range(len(tokenizer)) if number % 12 == 0}
    original = model.forward

    def forward(input_ids: torch.Tensor, logits_to_keep: int) -> SimpleNamespace:
        logits = original(input_ids, logits_to_keep).logits
        logits[..., sorted(forget)] = -1.0
        return SimpleNamespace(logits=logits)

    model.forward = forward  # type: ignore[method-assign]
    found = []
    for trial in passkey_trials(tokenizer, 256, 0.5, trials=20):
        ids = list(trial.prompt)
        for _ in trial.answers[0]:
            ids.append(int(model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].argmax()))
        found.append(ids[len(trial.prompt) :] == trial.answers[0])
    assert 0 < sum(found) < 20
    (score,) = passkey(model, tokenizer, [256], [0.5], trials=20)  # type: ignore[arg-type]
    assert score.accuracy == sum(found) / 20


@pytest.mark.parametrize(
    ("length", "depth", "message"),
    [
        (20, 0.5, r"20 tokens is too short: with this tokenizer it takes about \d+"),
        (300, 1.5, "depth is between 0 and 1, got 1.5"),
        (0, 0.5, "length 0"),
    ],
)
def test_impossible_texts(
    tokenizer: PreTrainedTokenizerFast, length: int, depth: float, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        next(passkey_trials(tokenizer, length, depth, trials=1))


def test_the_length_named_as_needed_is_nearly_all_sentences(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(SettingsError) as error:
        next(passkey_trials(tokenizer, 20, 0.5, trials=1))
    shortest = int(str(error.value).rsplit(" ", 1)[1])
    trials = list(passkey_trials(tokenizer, shortest + 12, 0.5, trials=20))  # keys differ in tokens
    assert all(tokenizer.decode(trial.prompt).count("grass") <= 1 for trial in trials)
