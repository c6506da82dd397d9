import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from medxpertqa import leakage
from medxpertqa.errors import DataError
from medxpertqa.memory import OutputAudit, TextAudit, audit_questions
from medxpertqa.questions import Question

words = st.text(alphabet="ab cD1.,-\né", max_size=40)
suffixed = st.lists(
    st.sampled_from(["bleeds", "bleeding", "Bleeding,", "dying", "dies", "infected", "infection"]), max_size=8
).map(" ".join)


def test_rouge_l_by_hand():
    # 5 of 6 words in common, in order, on both sides
    assert leakage.rouge_l("the cat sat on the mat", "the cat lay on the mat") == pytest.approx(5 / 6)
    assert leakage.rouge_l("", "a") == leakage.rouge_l("?", "!") == 0


@given(words | suffixed, words | suffixed, st.booleans())
def test_rouge_l_is_that_of_rouge_score(text, reference, stemmed):
    peer = RougeScorer(["rougeL"], use_stemmer=stemmed).score(reference, text)["rougeL"].fmeasure
    assert leakage.rouge_l(text, reference, stemmed) == pytest.approx(peer)


def test_edit_similarity_by_hand():
    # three edits of seven characters
    assert leakage.edit_similarity("kitten", "sitting") == pytest.approx(4 / 7)


def test_the_scale_of_table_6_is_an_inverse_probability_of_the_whole_output():
    # 2,008 · 0.25 / ln 10
    assert leakage.log10_inverse_probability([-0.25] * 2008) == pytest.approx(218.0, abs=0.05)
    assert leakage.perplexity([-0.25] * 2008) == pytest.approx(math.exp(0.25))


def test_perplexity_never_overflows():
    assert leakage.perplexity([-math.inf, -1]) == math.inf
    assert leakage.perplexity([-800.0]) == math.inf


@pytest.mark.parametrize("values", [[], [0.5], [float("nan")], [[-1.0]]])
def test_what_is_no_log_probability_is_refused(values):
    with pytest.raises(DataError, match="log-probabilities"):
        leakage.perplexity(values)


def test_a_text_is_flagged_when_all_places_are_continued_not_when_one_is():
    expected = ["a b c d e", "f g h i j"]
    assert leakage.ngram_audit(expected, expected).flagged
    half = leakage.ngram_audit([expected[0], "quite other words here now"], expected)
    assert half.accuracy == 0.5
    assert not half.flagged
    assert leakage.ngram_audit(["a b c d", "f g h i"], expected).flagged  # ROUGE-L 8/9 for both
    said, stands = ["bleeding stopped"] * 2, ["bleeds stop"] * 2  # other words with the same stems
    assert [leakage.ngram_audit(said, stands, stemmed=stemmed).flagged for stemmed in (False, True)] == [
        False,
        True,
    ]


def test_ngram_accuracy_needs_a_prediction_for_each():
    assert leakage.ngram_accuracy([[1, 2], [3, 4]], [[1, 2], [3, 5]]) == 0.5
    with pytest.raises(DataError, match="1 predicted and 2 expected"):
        leakage.ngram_accuracy([[1]], [[1], [2]])


@given(st.integers(0, 200), st.integers(1, 10), st.integers(1, 8))
def test_start_points_leave_a_prefix_and_n_tokens(length, n, k):
    points = leakage.start_points(length, n, k)
    assert all(1 <= point <= length - n for point in points)
    assert len(points) <= k
    assert bool(points) == (length > n)


def test_the_interval_of_a_constant_change_is_that_change():
    change = leakage.paired_change([1, 2, 3], [2, 3, 4])
    assert (change.difference, *change.ci) == pytest.approx((1, 1, 1))
    with pytest.raises(DataError, match="before and after"):
        leakage.paired_change([1, 2], [1])


def test_the_interval_of_a_change_agrees_with_its_standard_error():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    change = leakage.paired_change(np.zeros(400), noise, draws=4000)
    assert change.ci[1] - change.ci[0] == pytest.approx(2 * 1.96 * noise.std() / 20, rel=0.08)


def test_auc_counts_pairs_and_ties_half():
    assert leakage.auc([2, 3], [1, 2]) == 3.5 / 4
    with pytest.raises(DataError, match="both kinds"):
        leakage.auc([], [1])


class Measured:
    """A memory that has measured already."""

    name = "measured"

    def __init__(self, text):
        self.text = text

    def audit_text(self, text, stemmed):
        return self.text

    def audit_output(self, question, max_tokens):
        return OutputAudit("one", float("inf"), 400.0)


def test_what_is_no_number_is_null_in_the_file_of_an_audit_and_read_again(tmp_path):
    question = Question("s-1", "Case?", {"A": "one", "B": "two"}, "A", explanation="one")
    short = TextAudit(2.0, 1.0, *[float("nan")] * 3, flagged=False)
    out = tmp_path / "audit.jsonl"
    first = audit_questions(Measured(short), [question], out)
    row = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert (row["text"]["ngram_accuracy"], row["output"]["perplexity"]) == (None, None)
    again = audit_questions(Measured(None), [question], out)
    assert repr(again.rows) == repr(first.rows)
