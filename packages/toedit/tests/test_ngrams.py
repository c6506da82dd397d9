"""Hashed n-grams beside data-selection, the peer; and numbers that are known by hand."""

from __future__ import annotations

from itertools import product
from math import log

import numpy as np
import pytest
from data_selection.hashed_ngram_dsir import get_ngram_counts
from hypothesis import given, settings
from hypothesis import strategies as st

from toedit import ToEditError
from toedit.analysis import concentration, hashed_ngrams, top_ngrams
from toedit.analysis import ngrams as module

# What lower case, \w and \s are sensitive to: İ and Σ at a word's end, digits of all kinds, combining marks,
# separators, a zero-width joiner, letters outside the basic plane.
ODD = "aB9_ \t\n\r\x0b\x1c\x85\xa0.,-é̀İΣςß²½٣Ⅷ漢字　​‍👍🏽𝔘\x00\u2028"
unicode_texts = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]), max_size=60)


def peer(texts: list[str], n: int, buckets: int) -> np.ndarray:
    counts = np.zeros(buckets, dtype=int)
    for text in texts:
        get_ngram_counts(text, n=n, num_buckets=buckets, counts=counts)
    return counts


@settings(deadline=None)
@given(st.lists(unicode_texts, max_size=6), st.integers(1, 4), st.sampled_from([1, 7, 10_000, 2**20]))
def test_hashed_ngrams_are_those_of_data_selection(texts: list[str], n: int, buckets: int) -> None:
    ours = hashed_ngrams(texts, n=n, buckets=buckets)
    assert ours.dtype == np.int64
    np.testing.assert_array_equal(ours, peer(texts, n, buckets))


@settings(deadline=None)
@given(st.lists(st.text("ab .", max_size=40), max_size=8), st.integers(1, 4))
def test_texts_of_few_words_that_repeat(texts: list[str], n: int) -> None:
    np.testing.assert_array_equal(hashed_ngrams(texts, n), peer(texts, n, 10_000))


@pytest.mark.parametrize(("first", "size"), [(97, 26), (0x4E00, 5000), (0x10000, 70_000)])
def test_words_of_any_length_in_alphabets_of_any_size(first: int, size: int) -> None:
    random = np.random.default_rng(0)
    words = ["".join(map(chr, first + random.integers(0, size, n))) for n in random.integers(1, 24, 500)]
    text = " ".join(words[i] for i in random.integers(0, 500, 2000))
    # All letters once, so that the numbers of the text's characters need one, two and four bytes.
    text += " ".join(chr(first + i) for i in range(size))
    np.testing.assert_array_equal(hashed_ngrams(text), peer([text], 2, 10_000))


@pytest.mark.parametrize("letter", ["\x00", "a", "é", "漢", "\U0010ffff"])
def test_words_that_are_beginnings_of_each_other_are_told_apart(letter: str) -> None:
    texts = [" ".join(letter * n for n in range(1, 70)), " ".join(letter * n for n in range(70, 0, -3))]
    np.testing.assert_array_equal(hashed_ngrams(texts), peer(texts, 2, 10_000))
    # The parts by which long words are told apart are no words.
    assert top_ngrams([letter * 20, letter * 70], n=1, k=9) == [(letter * 20, 1), (letter * 70, 1)]


def test_every_character_of_unicode_is_classed_as_the_peer_does() -> None:
    text = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    np.testing.assert_array_equal(hashed_ngrams(text, n=1), peer([text], 1, 10_000))


def test_chunks_pieces_and_batches_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"the {number} cats of {number % 7} houses" for number in range(200)]
    whole, top = hashed_ngrams(texts, n=3), top_ngrams(texts, n=2, k=5)
    for size in ("_PIECE", "_BATCH", "_CHUNK"):
        monkeypatch.setattr(module, size, 100)
        np.testing.assert_array_equal(hashed_ngrams(iter(texts), n=3), whole)
        assert top_ngrams(texts, n=2, k=5) == top


def test_counts_by_hand() -> None:
    # 4 words and 3 pairs, or 2 + 1 and 2 + 1 when they are two texts: no pair runs across.
    assert hashed_ngrams("a b a b").sum() == 7
    assert hashed_ngrams(["a b", "a b"]).sum() == 6
    # SHA-256 of "a" begins ca978112 and ends afee48bb; its last bits give the bucket modulo a power of 2.
    assert np.flatnonzero(hashed_ngrams("A", buckets=2**16)).tolist() == [0x48BB]
    assert hashed_ngrams([], buckets=5).tolist() == [0] * 5
    assert hashed_ngrams(["", " \n"], buckets=5).tolist() == [0] * 5


def test_top_ngrams_by_hand() -> None:
    texts = ["To be, or not to be!", "to be"]
    assert top_ngrams(texts, n=2, k=2) == [("to be", 3), (", or", 1)]
    assert top_ngrams(texts, n=1, k=2) == [("be", 3), ("to", 3)]
    assert top_ngrams(texts, n=9) == []


def test_numbering_gives_equal_keys_one_number() -> None:
    # Keys that share their upper bits after every factor collide in all rounds; they end in the sorting.
    random = np.random.default_rng(0)
    keys = random.integers(0, 2**63, 5000, dtype=np.uint64)[random.integers(0, 5000, 40_000)]
    for some in (keys, keys[:1], keys[:0], np.zeros(9, dtype=np.uint64)):
        ids, distinct = module._number(some)
        np.testing.assert_array_equal(distinct[ids], some)
        assert len(distinct) == len(np.unique(some))


def test_concentration_by_hand() -> None:
    even = concentration(np.full(200, 3))
    assert even.entropy == pytest.approx(log(200))
    assert even.effective_buckets == pytest.approx(200)
    assert even.gini == pytest.approx(0, abs=1e-12)
    assert even.top_share == pytest.approx(0.01)
    one = concentration([0] * 99 + [5])
    assert (one.entropy, one.effective_buckets, one.top_share) == (0.0, 1.0, 1.0)
    assert one.gini == pytest.approx(0.99)
    # The mean absolute difference of 1, 1, 2, 4 over all 16 pairs is 20/16, over twice the mean: 5/16.
    assert concentration([1, 4, 2, 1]).gini == pytest.approx(5 / 16)


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=40).filter(any))
def test_gini_is_the_mean_difference_over_twice_the_mean(counts: list[int]) -> None:
    differences = [abs(a - b) for a, b in product(counts, repeat=2)]
    expected = np.mean(differences) / (2 * np.mean(counts))
    assert concentration(counts).gini == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hashed_ngrams("a", n=0), "n >= 1"),
        (lambda: hashed_ngrams("a", buckets=0), "buckets"),
        (lambda: hashed_ngrams("a", buckets=2**28 + 1), "buckets"),
        (lambda: hashed_ngrams(["good", "\n", "b\ud800d"]), r"text 2 .*\\ud800"),
        (lambda: hashed_ngrams(["a" * 1_000_000, "b", "c\ud800"]), "text 2 "),
        (lambda: concentration([0, 0]), "not all 0"),
        (lambda: concentration([-1, 2]), ">= 0"),
        (lambda: concentration([]), "not all 0"),
    ],
)
def test_what_cannot_be_says_why(call: object, message: str) -> None:
    with pytest.raises(ToEditError, match=message):
        call()
