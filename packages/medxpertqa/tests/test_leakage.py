import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from medxpertqa import leakage
from medxpertqa.errors import DataError
from medxpertqa.memory import CausalMemory
from medxpertqa.questions import Question

words = st.text(alphabet="ab cD1.,-\né", max_size=40)


def test_rouge_l_by_hand():
    # 5 of 6 words in common, in order, on both sides
    assert leakage.rouge_l("the cat sat on the mat", "the cat lay on the mat") == pytest.approx(5 / 6)
    assert leakage.rouge_l("", "a") == leakage.rouge_l("?", "!") == 0


@given(words, words)
def test_rouge_l_is_that_of_rouge_score_without_its_stemmer(text, reference):
    peer = RougeScorer(["rougeL"], use_stemmer=False).score(reference, text)["rougeL"].fmeasure
    assert leakage.rouge_l(text, reference) == pytest.approx(peer)


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


class Letters:
    """A tokenizer of letters."""

    eos_token_id = None

    def encode(self, text, add_special_tokens=False):
        return [ord(c) % 64 for c in text]

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def memory():
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return CausalMemory(
        LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=90, **sizes)), Letters()
    )


def test_a_model_trained_on_a_text_is_caught_and_on_another_text_not(memory):
    import copy

    import torch

    seen, other = "the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs now"
    trained = CausalMemory(copy.deepcopy(memory.model), memory.tokenizer)
    row = torch.tensor([memory.tokenizer.encode(seen)])
    optimizer = torch.optim.Adam(trained.model.parameters(), lr=0.02)
    trained.model.train()
    for _ in range(150):
        optimizer.zero_grad()
        trained.model(row, labels=row).loss.backward()
        optimizer.step()
    trained.model.eval()
    leaked, clean = trained.audit_text(seen), trained.audit_text(other)
    assert leaked.flagged
    assert leaked.ngram_accuracy == 1
    assert leaked.perplexity < 1.5
    assert not clean.flagged
    assert clean.perplexity > 20


def test_log_probabilities_are_the_models_loss(memory):
    import torch

    text = "aortic stenosis"
    row = torch.tensor([memory.tokenizer.encode(text)])
    loss = memory.model(row, labels=row).loss.item()
    assert -np.mean(memory.log_probabilities(text)) == pytest.approx(loss, rel=1e-5)


def test_the_certainty_of_an_own_answer_is_that_of_the_same_tokens_read_again(memory):
    question = Question(id="s-1", stem="Which?", options={"A": "one", "B": "two"}, label="A")
    audit = memory.audit_output(question, max_tokens=8)
    prompt = memory.tokenizer.encode(question.to_prompt_string() + "\nAnswer:")
    written = [int(token) for token in audit.output.split()]
    import torch

    logits = memory.model(torch.tensor([prompt + written])).logits[0]
    again = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1][range(8), written]
    assert audit.perplexity == pytest.approx(torch.exp(-again.mean()).item(), rel=1e-4)


def test_a_text_beyond_the_context_and_one_of_one_token_are_refused(memory):
    with pytest.raises(DataError, match="context of 90"):
        memory.log_probabilities("a" * 100)
    with pytest.raises(DataError, match="1 tokens"):
        memory.log_probabilities("a")
