"""Mixtures have their budget to the token, repeat nothing, and grow without changing what was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toedit
from toedit import ToEditError, mix

HUMAN = [np.full(1 + row % 7, row) for row in range(301)]  # 43 weeks of 28: 1204 tokens
SYNTHETIC = [np.full(1 + row % 5, -1 - row) for row in range(400)]  # 1200 tokens


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 1190), st.integers(0, 2**32))
def test_the_budget_is_met_to_the_token(alpha: float, tokens: int, seed: int) -> None:
    mixture = mix(HUMAN, SYNTHETIC, alpha, tokens=tokens, seed=seed)
    ids = np.concatenate(list(mixture))
    assert len(ids) == tokens == mixture.sizes.sum()
    assert (ids >= 0).sum() == round(alpha * tokens) == mixture.sizes[mixture.human].sum()
    sources = {True: HUMAN, False: SYNTHETIC}
    cut = 0
    for document, human, row, size in zip(mixture, mixture.human, mixture.rows, mixture.sizes, strict=True):
        np.testing.assert_array_equal(document, sources[bool(human)][row][:size])
        cut += size < len(sources[bool(human)][row])
    assert cut <= 2
    for human in (True, False):
        assert len(np.unique(rows := mixture.rows[mixture.human == human])) == len(rows)


def test_the_same_seed_draws_the_same_and_another_one_does_not() -> None:
    first, again, other = (mix(HUMAN, SYNTHETIC, 0.5, tokens=500, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(np.concatenate(list(first)), np.concatenate(list(again)))
    assert first.rows.tolist() != other.rows.tolist()


def test_a_larger_share_keeps_the_documents_drawn_and_their_order() -> None:
    small, large = (mix(HUMAN, SYNTHETIC, alpha, tokens=800) for alpha in (0.25, 0.75))
    few, many = (mixture.rows[mixture.human].tolist() for mixture in (small, large))
    assert [row for row in many if row in few] == few
    assert len(many) > 2 * len(few)


def test_sources_are_shuffled_into_each_other() -> None:
    human = mix(HUMAN, SYNTHETIC, 0.5, tokens=1000).human
    # Independent places: about n p (1 - p) = n/4 places where a human document comes before a synthetic one.
    turns = np.sum(human[:-1] & ~human[1:])
    assert abs(turns / len(human) - 0.25) < 0.05


def test_all_of_one_kind() -> None:
    assert mix(HUMAN, SYNTHETIC, 1, tokens=1204).human.all()
    assert not mix([], SYNTHETIC, 0.0, tokens=1200).human.any()
    assert len(mix(np.arange(12).reshape(3, 4), [], 1.0, tokens=10)) == 3


class Unread(list):
    """Documents that count how many were read."""

    read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return super().__getitem__(index)


def test_only_what_is_drawn_is_read() -> None:
    source = Unread([[1, 2]] * 1000)
    mix(source, [], 1.0, tokens=11)
    assert source.read == 6


@settings(deadline=None, max_examples=40)
@given(alpha=st.floats(0, 1), tokens=st.integers(1, 200))
def test_texts_are_cut_so_that_they_have_just_the_tokens(tokenizer: Any, alpha: float, tokens: int) -> None:
    human = [f"hello world, the cat {row} in the hat é sat on the mat 🙂" for row in range(40)]
    synthetic = [f"the mat, the mat {row}" for row in range(80)]
    mixture = mix(human, synthetic, alpha, tokens=tokens, tokenizer=tokenizer)
    sizes = [len(tokenizer(text)["input_ids"]) for text in mixture]
    assert sizes == mixture.sizes.tolist()
    assert sum(sizes) == tokens
    assert mixture.sizes[mixture.human].sum() == round(alpha * tokens)
    for text, is_human, row in zip(mixture, mixture.human, mixture.rows, strict=True):
        assert (human if is_human else synthetic)[row].startswith(text)


def test_a_text_that_cannot_be_cut_to_size_leaves_the_rest_to_others(tokenizer: Any) -> None:
    # Four tokens a character: no beginning has six of them, so two come from the short texts.
    texts = ["🙂🙂", "🙂🙂", *["at"] * 6]
    assert len(tokenizer("🙂🙂")["input_ids"]) == 8
    mixture = mix(texts, [], 1.0, tokens=6, tokenizer=tokenizer)
    assert sum(len(tokenizer(text)["input_ids"]) for text in mixture) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.1, "tokens": 5}, "alpha"),
        ({"alpha": 0.5, "tokens": 0}, "at least 1 token"),
        ({"alpha": 0.5, "tokens": 5, "seed": -1}, "seed is -1; it must be a whole number"),
        ({"alpha": 1.0, "tokens": 1205}, "human documents give only 1204 of the 1205 tokens"),
        ({"alpha": 0.0, "tokens": 1300}, "synthetic documents give only 1200 of the 1300 tokens"),
        ({"alpha": 1.0, "tokens": 5, "human": ["a text"]}, "human document 0 .* tokenizer"),
        ({"alpha": 1.0, "tokens": 5, "human": np.arange(9)}, "sequences of token ids"),
    ],
)
def test_what_cannot_be_says_why(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ToEditError, match=message):
        mix(**{"human": HUMAN, "synthetic": SYNTHETIC} | arguments)


def test_the_package_offers_it() -> None:
    assert toedit.mix is mix
