import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmlab.deduplication import (
    MAX_CONTAINMENT,
    SHINGLE_WORDS,
    containment,
    containment_in_earlier,
    keep_distinct,
    shingles,
    words,
)

# Few words, so that texts share runs of them; up to four times the length of a shingle.
texts = st.lists(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=4 * SHINGLE_WORDS).map(" ".join), max_size=8
)


def runs(text: str) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i : i + SHINGLE_WORDS]) for i in range(len(found) - SHINGLE_WORDS + 1)]


def share(text: str, others: list[str]) -> float:
    """Containment by its definition, with sets of words in place of hashes."""
    known = {run for other in others for run in runs(other)}
    mine = runs(text)
    return sum(run in known for run in mine) / len(mine) if mine else 0.0


@given(texts, texts)
def test_containment_is_the_share_of_runs_of_words(those: list[str], others: list[str]):
    expected = [share(text, others) for text in those]
    both = shingles(those + others)
    first = np.arange(len(those + others)) < len(those)
    np.testing.assert_allclose(containment(both.select(first), both.select(~first)), expected)


@given(texts)
def test_containment_in_earlier_texts(those: list[str]):
    expected = [share(text, those[:i]) for i, text in enumerate(those)]
    np.testing.assert_allclose(containment_in_earlier(shingles(those)), expected)


@given(texts, st.data())
def test_nothing_kept_for_evaluation_is_known_from_training(those: list[str], data: st.DataObject):
    evaluation = data.draw(st.lists(st.booleans(), min_size=len(those), max_size=len(those)))
    keep = keep_distinct(those, evaluation)
    training = [t for t, k, e in zip(those, keep, evaluation, strict=True) if k and not e]
    evaluated = [t for t, k, e in zip(those, keep, evaluation, strict=True) if k and e]
    assert all(share(text, training) <= MAX_CONTAINMENT for text in evaluated)
    for number, text in enumerate(training):
        assert share(text, evaluated + training[:number]) <= MAX_CONTAINMENT


BASE = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


def test_case_punctuation_and_white_space_do_not_hide_a_copy():
    copy = BASE.upper().replace(" ", ",\n  ")
    assert list(keep_distinct([BASE, copy], [False, False])) == [True, False]


def test_evaluation_comes_first_and_its_copy_leaves_the_training_text():
    assert list(keep_distinct([BASE, BASE], [False, True])) == [False, True]


def test_a_short_evaluation_text_inside_a_long_training_text_is_left_out():
    # The training text has 48 words and 41 runs, 9 of them in BASE: no copy of BASE. But BASE is all in it.
    long = " ".join(f"{word}{i}" for i in range(2) for word in BASE.split()) + " " + BASE
    assert share(long, [BASE]) == 9 / 41
    assert list(keep_distinct([long, BASE], [False, True])) == [True, False]


def test_half_in_common_is_kept_and_one_run_more_is_not():
    head = BASE.split()  # 16 words, 9 runs
    tail = [f"new{i}" for i in range(9)]
    half = " ".join(head + tail)  # 25 words, 18 runs, 9 known
    more = " ".join(head + tail[:8])  # 24 words, 17 runs, 9 known
    assert list(keep_distinct([BASE, half], [False, False])) == [True, True]
    assert list(keep_distinct([BASE, more], [False, False])) == [True, False]


def test_texts_without_a_run_of_words_are_kept():
    assert list(keep_distinct(["a b", "a b", ""], [True, False, False])) == [True, True, True]
    assert keep_distinct([], []).shape == (0,)
