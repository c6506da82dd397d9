import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from medxpertqa.construct import (
    brier,
    deduplicate,
    edit_fences,
    edit_similar_pairs,
    iqr_fence,
    iqr_outliers,
    semantic_similar_pairs,
)
from medxpertqa.construct import edit_pairs as module
from medxpertqa.construct.nearest_edits import nearest_edit_similarity
from medxpertqa.construct.semantic import TfidfEmbedder, semantic_similarity
from medxpertqa.errors import DataError


def brute(texts, threshold):
    scores = {
        (i, j): Levenshtein.normalized_similarity(texts[i], texts[j])
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
    }
    return [(i, j, s) for (i, j), s in scores.items() if s >= threshold]


short = st.text(alphabet="ab é\U0001f642", max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(short, max_size=9), st.floats(0.5, 1))
def test_the_pairs_are_those_of_all_comparisons(texts, threshold):
    assert edit_similar_pairs(texts, threshold) == brute(texts, threshold)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.7, 0.8, 0.9, 0.95]))
def test_edited_copies_among_long_texts_are_found_whatever_the_blocks(seed, threshold):
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoin shrdlu"))
    texts = ["".join(rng.choice(letters, rng.integers(0, 120))) for _ in range(12)]
    for text in texts[:8]:
        places = rng.random(len(text)) < rng.choice([0.05, 0.1, 0.2])
        texts.append("".join(rng.choice(letters) if p else c for c, p in zip(text, places, strict=True)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", 3)
        patch.setattr(module, "_BLOCK", 2 * module._SEGMENT)
        assert edit_similar_pairs(texts, threshold) == brute(texts, threshold)


@pytest.mark.parametrize(("cut", "added"), [(100, 0), (0, 125), (50, 50), (101, 0)])
def test_a_copy_moved_as_far_as_the_threshold_allows_is_found_and_one_further_is_not(cut, added):
    rng = np.random.default_rng(cut)
    text = "".join(rng.choice(list("etaoin shrdlu"), 500))
    copy = "#" * added + text[cut:]
    # cut off or put before: 1 - 100/500, 1 - 125/625; one for one: 1 - 50/500
    assert edit_similar_pairs([text, copy]) == brute([text, copy], 0.8)
    assert bool(edit_similar_pairs([text, copy])) == (cut <= 100)


def test_texts_that_repeat_one_character_are_compared_though_they_have_no_rare_pieces():
    texts = ["a" * n for n in (0, 2, 3, 800, 1000, 1001, 3000)] + [
        "a" * 2900 + "bcd" * 40,
        "a" * 900 + "b" * 100,
    ]
    for threshold in (0.8, 0.95):
        assert edit_similar_pairs(texts, threshold) == brute(texts, threshold)


def test_two_empty_texts_are_equal_and_one_text_has_no_pair():
    assert edit_similar_pairs(["", ""]) == [(0, 1, 1.0)]
    assert edit_similar_pairs(["a"]) == []


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_an_impossible_threshold_is_named(threshold):
    with pytest.raises(DataError, match=f"threshold {threshold}"):
        edit_similar_pairs(["a", "b"], threshold)


def test_a_text_that_is_none_is_named_by_its_position():
    with pytest.raises(DataError, match="text 1 is a NoneType"):
        edit_similar_pairs(["a", None])


pair_graphs = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1)).filter(lambda p: p[0] != p[1]),
    max_size=25,
)


@given(pair_graphs, st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_what_deduplication_leaves_has_no_pair_and_a_second_run_removes_nothing(pairs, difficulty):
    removed = set(deduplicate(pairs, difficulty))
    left = [p for p in pairs if p[0] not in removed and p[1] not in removed]
    assert left == []
    assert deduplicate(left, difficulty) == []
    assert removed <= {i for p in pairs for i in p[:2]}


def test_the_easier_of_a_pair_goes_and_of_equal_ones_the_later():
    assert deduplicate([(0, 1, 0.9)], [0.1, 0.2]) == [0]
    assert deduplicate([(0, 1, 0.9)], [0.2, 0.1]) == [1]
    assert deduplicate([(0, 1, 0.9)], [0.2, 0.2]) == [1]
    assert deduplicate([(0, 1, 0.9)], [float("nan"), 0.2]) == [1]


def test_the_most_similar_pair_is_decided_first():
    # 1-2 goes first and removes 1; then 0-1 is settled, and 0 stays although it is the easiest
    assert deduplicate([(0, 1, 0.8), (1, 2, 0.9)], [0.1, 0.2, 0.3]) == [1]


def test_fence_and_outliers_by_hand():
    # quartiles of 0, 1, 2, 3, 4 are 1 and 3: the fence is 3 + 3·2 = 9
    assert iqr_fence([0, 1, 2, 3, 4], 3) == 9
    assert iqr_outliers([0, 1, 2, 3, 4, 100], 1.5).tolist() == [5]
    with pytest.raises(DataError, match="at least one value"):
        iqr_fence([])


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    made = rng.normal(size=(700, 24))  # more than one block
    made[650] = made[3] + 0.01 * rng.normal(size=24)
    return made


def test_a_planted_copy_is_the_only_outlier_of_the_nearest_similarities(vectors):
    pairs = semantic_similar_pairs(vectors)
    assert [(p.first, p.second) for p in pairs] == [(3, 650)]


@pytest.mark.parametrize("scope", ["nearest", "pairs"])
def test_fence_and_pairs_are_those_of_the_full_matrix(vectors, scope):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    full = unit @ unit.T
    upper = full[np.triu_indices(len(full), 1)]
    np.fill_diagonal(full, -np.inf)
    fence = iqr_fence(full.max(1) if scope == "nearest" else upper, 1.5)
    found = semantic_similarity(vectors, scope=scope, k=1.5)
    assert found.fence == pytest.approx(fence, abs=2e-5)
    expected = int((upper > fence).sum())
    assert abs(len(found.pairs) - expected) <= 1
    assert found.nearest == pytest.approx(full.max(1), abs=1e-5)


def test_tfidf_finds_a_copy_with_its_sentences_moved():
    words = [f"word{i}" for i in range(200)]
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(words, 30)) for _ in range(60)]
    half = texts[5].split()
    texts.append(" ".join(half[15:] + half[:15]))
    assert [(p.first, p.second) for p in semantic_similar_pairs(texts, TfidfEmbedder())] == [(5, 60)]


def test_vectors_that_are_not_finite_and_texts_without_words_are_refused():
    with pytest.raises(DataError, match="text 1 is not finite"):
        semantic_similar_pairs(np.array([[1.0, 0], [np.nan, 1]]))
    with pytest.raises(DataError, match="no words"):
        semantic_similar_pairs(["", "?"])


def test_brier_by_hand():
    # (0.3² + 2·0.1² + 2·0.05²) / 5
    assert brier([0.7, 0.1, 0.1, 0.05, 0.05], 0) == pytest.approx(0.023)
    assert brier([0.7, 0.1, 0.1, 0.05, 0.05], 0, "multiclass") == pytest.approx(0.115)
    assert brier([0, 1], 0) == 1.0  # the worst case, 2/N
    for n, uniform in [(4, 0.1875), (5, 0.16), (10, 0.09)]:
        assert brier([1 / n] * n, 0) == pytest.approx(uniform)
        assert brier([1 / n] * n, n - 1, "skill") == pytest.approx(0)


@pytest.mark.parametrize("shares", [[0.5, 0.4], [1.2, -0.2], [1.0], [float("nan"), 1]])
def test_shares_that_are_no_distribution_are_refused(shares):
    with pytest.raises(DataError, match="answer shares"):
        brier(shares, 0)


def test_each_text_has_the_similarity_to_its_nearest():
    texts = ["comet", "comets", "lagoon", "comet", ""]
    # two equal texts; one letter more; "comet" is four edits from "lagoon"; nothing is like an empty text
    expected = [
        1,
        5 / 6,
        max(Levenshtein.normalized_similarity("lagoon", other) for other in texts[:2]),
        1,
        0,
    ]
    assert nearest_edit_similarity(texts) == pytest.approx(expected)
    many = [f"{random.Random(i).random()}" for i in range(600)]  # more than a block
    near = nearest_edit_similarity(many)
    for i in (0, 255, 256, 599):
        others = many[:i] + many[i + 1 :]
        assert near[i] == max(Levenshtein.normalized_similarity(many[i], other) for other in others)
    with pytest.raises(DataError, match="at least 2 texts"):
        nearest_edit_similarity(["alone"])


def test_the_fences_count_what_they_and_the_threshold_would_find():
    unlike = ["".join(random.Random(i).choices("abcdefghij", k=40 + 3 * i)) for i in range(40)]
    texts = [*unlike, "a patient with pain", "a patient with pains"]
    fences = edit_fences(texts, threshold=0.9)
    nearest = nearest_edit_similarity(texts)
    q1, _, q3 = fences.quartiles
    assert fences.fences == pytest.approx({1.5: q3 + 1.5 * (q3 - q1), 3.0: q3 + 3 * (q3 - q1)})
    assert fences.above == {k: (nearest > fence).sum() for k, fence in fences.fences.items()}
    assert fences.above[1.5] >= fences.above[3.0] == 2
    assert (fences.at_threshold, fences.n) == (2, 42)
    assert "k = 1.5" in str(fences)
    assert "threshold 0.9: 2" in str(fences)
