"""Passkey retrieval: does a model find a number that was said once, far back (Mohtashami and Jaggi 2023)?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmlab.errors import SettingsError
from lmlab.evaluation import evaluating

INTRODUCTION = (
    "There is important information hidden in a lot of irrelevant text. Find it and memorize it. "
    "There will be a question about it."
)
FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = " The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = " What is the pass key? The pass key is"
ANSWER = " {key}"

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class PasskeyScore:
    """How well keys were found at one length and depth, over `trials` texts.

    `accuracy` is the share of trials in which greedy decoding gives the key. `mean_rank` tells more of a weak
    model: the place of the key's log-probability among those of `candidates` keys, 1 if it is the most
    probable; a model that has not read the text gets (candidates + 1) / 2.
    """

    length: int
    depth: float
    trials: int
    accuracy: float
    mean_rank: float
    candidates: int


@dataclass(frozen=True)
class PasskeyTrial:
    """A text up to the question, as token ids, and the possible answers; the first one is right."""

    prompt: list[int]
    answers: list[list[int]]


def passkey(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lengths: Sequence[int],
    depths: Sequence[float] = DEPTHS,
    *,
    trials: int = 10,
    candidates: int = 8,
    digits: int = 5,
    seed: int = 0,
) -> list[PasskeyScore]:
    """Scores for each length (tokens of text and answer together) and depth (0 is the text's beginning).

    The texts depend on the tokenizer, the length, the depth and `seed` alone. Every process of a sharded
    model must call it, and gets the same scores.
    Raises `SettingsError` for a length that leaves no room for the sentences, or a depth outside [0, 1].
    """
    scores = []
    with evaluating(model):
        for length in lengths:
            for depth in depths:
                texts = passkey_trials(tokenizer, length, depth, trials, candidates, digits, seed)
                found = [_answer(model, text) for text in texts]
                accuracy = sum(greedy for greedy, _ in found) / trials
                mean_rank = sum(rank for _, rank in found) / trials
                scores.append(PasskeyScore(length, depth, trials, accuracy, mean_rank, candidates))
    return scores


def passkey_trials(
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    depth: float,
    trials: int,
    candidates: int = 8,
    digits: int = 5,
    seed: int = 0,
) -> Iterator[PasskeyTrial]:
    """The texts of one length and depth. A text and its longest answer are `length` tokens together."""
    if not 0 <= depth <= 1:
        raise SettingsError(f"a passkey's depth is between 0 and 1, got {depth}")
    if min(length, trials, digits) < 1 or candidates < 2:
        raise SettingsError(
            f"passkey needs positive numbers and 2 candidates: length {length}, trials {trials}, "
            f"digits {digits}, candidates {candidates}"
        )
    for trial in range(trials):
        # A text is a stable seed: Python hashes it with SHA-512.
        keys = _keys(random.Random(f"{seed} {length} {depth} {trial}"), candidates, digits)
        answers = [_encode(tokenizer, ANSWER.format(key=key)) for key in keys]
        room = length - max(map(len, answers))
        yield PasskeyTrial(_prompt(tokenizer, keys[0], room, depth, length), answers)


def _keys(source: random.Random, count: int, digits: int) -> list[str]:
    """Different numbers of that many digits, not beginning with 0."""
    return [str(number) for number in source.sample(range(10 ** (digits - 1), 10**digits), count)]


def _prompt(tokenizer: PreTrainedTokenizerBase, key: str, room: int, depth: float, length: int) -> list[int]:
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    introduction, filler, needle, question = (
        _encode(tokenizer, text) for text in (INTRODUCTION, FILLER, NEEDLE.format(key=key), QUESTION)
    )
    spare = room - len(begin) - len(introduction) - len(needle) - len(question)
    if spare < 0:
        raise SettingsError(
            f"a passkey text of {length} tokens is too short: with this tokenizer it takes about "
            f"{length - spare}"
        )
    running = (filler * (spare // len(filler) + 1))[:spare]
    before = round(depth * spare)
    return [*begin, *introduction, *running[:before], *needle, *running[before:], *question]


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _answer(model: PreTrainedModel, trial: PasskeyTrial) -> tuple[bool, int]:
    """Whether greedy decoding gives the right answer, and that answer's rank by log-probability.

    One forward pass over text + answer for all answers: greedy decoding gives an answer exactly when each of
    its tokens is the most probable one after the text and the tokens before it. Shorter answers are padded on
    the right, where a causal model's earlier predictions do not see it.
    """
    longest = max(map(len, trial.answers))
    rows = [trial.prompt + answer + [0] * (longest - len(answer)) for answer in trial.answers]
    tokens = torch.tensor(rows, device=next(model.parameters()).device)
    logits = model(input_ids=tokens, logits_to_keep=longest + 1).logits[:, -longest - 1 : -1].float()
    expected = tokens[:, -longest:]
    counted = torch.arange(longest) < torch.tensor([len(answer) for answer in trial.answers])[:, None]
    counted = counted.to(tokens.device)
    chosen = logits.log_softmax(-1).gather(-1, expected[..., None])[..., 0]
    totals = (chosen * counted).sum(-1)
    greedy = (logits[0].argmax(-1) == expected[0]) | ~counted[0]
    return bool(greedy.all()), 1 + int((~(totals[1:] < totals[0])).sum())  # last, where they are no numbers
