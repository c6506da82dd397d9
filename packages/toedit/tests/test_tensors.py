from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from toedit import EditConfig, ToEditError, edit_tokens

V = 5
ALL = EditConfig(threshold=1e-9, top_k=V, temperature=1.5)  # every scored token is a candidate


def logits_of(probabilities, length, dtype=torch.float32):
    """(1, length, V): the same distribution everywhere."""
    return torch.tensor(probabilities, dtype=torch.float64).log().to(dtype).expand(1, length, -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_token_at_the_threshold_is_a_candidate_and_one_below_is_not(dtype):
    rest = [0.0025] * 4
    ids = torch.zeros(1, 3, dtype=torch.long)
    at = edit_tokens(ids, logits_of([0.99, *rest], 3, dtype), EditConfig(top_k=V), ["a"])[1]
    assert at.tolist() == [[False, True, True]]
    below = edit_tokens(
        ids, logits_of([0.99 - 4e-6, 0.0025 + 4e-6, *rest[1:]], 3, dtype), EditConfig(top_k=V), ["a"]
    )[1]
    assert not below.any()
    strict = EditConfig(top_k=V, inclusive=False)
    assert not edit_tokens(ids, logits_of([0.99, *rest], 3, dtype), strict, ["a"])[1].any()


def test_the_logits_before_a_token_score_it():
    # A model that is sure that t + 1 follows t. The third token breaks the rule, so it is no candidate.
    ids = torch.tensor([[0, 1, 2, 0, 1]])
    logits = torch.full((1, 5, V), -20.0)
    logits[0, torch.arange(5), (ids[0] + 1) % V] = 0.0
    cfg = EditConfig(top_k=V, temperature=1e6)
    _, candidates, _ = edit_tokens(ids, logits, cfg, ["a"])
    assert candidates.tolist() == [[False, True, True, False, True]]


def test_the_first_token_is_never_edited():
    new, candidates, changed = edit_tokens(
        torch.zeros(300, 2, dtype=torch.long), torch.zeros(300, 2, V), ALL, range(300)
    )
    assert candidates.tolist() == [[False, True]] * 300
    assert not changed[:, 0].any()
    assert (new[:, 0] == 0).all()
    assert changed[:, 1].sum() > 200  # four out of five


def test_k_of_one_never_changes_and_all_of_v_at_a_high_temperature_is_uniform():
    ids, logits = torch.zeros(1, 20_001, dtype=torch.long), logits_of([0.96, 0.01, 0.01, 0.01, 0.01], 20_001)
    assert not edit_tokens(ids, logits, EditConfig(top_k=1, threshold=0.9), ["a"])[2].any()
    new, candidates, _ = edit_tokens(ids, logits, EditConfig(top_k=V, threshold=0.9, temperature=1e6), ["a"])
    assert candidates.sum() == 20_000
    assert chisquare(torch.bincount(new[0, 1:])).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_the_draws_of_twenty_thousand_tokens_follow_q(temperature):
    p = torch.tensor([0.92, 0.04, 0.02, 0.01, 0.01], dtype=torch.float64)
    ids, logits = torch.zeros(1, 20_001, dtype=torch.long), logits_of(p.tolist(), 20_001)
    cfg = EditConfig(top_k=V, threshold=0.9, temperature=temperature)
    new, _, changed = edit_tokens(ids, logits, cfg, ["a"])
    q = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
    assert chisquare(torch.bincount(new[0, 1:]), 20_000 * q).pvalue > 1e-3
    assert (changed == (new != ids)).all()


def test_golden_edit():
    # argmax over j of log(p_j) / 1.5 + noise, worked out with test_randomness.noise_by_hand for seed 0.
    logits = logits_of([0.4, 0.3, 0.15, 0.1, 0.05], 12).expand(2, 12, V)
    new, _, _ = edit_tokens(torch.zeros(2, 12, dtype=torch.long), logits, ALL, ["a1", 7])
    assert new.tolist() == [[0, 2, 1, 3, 4, 2, 0, 0, 1, 1, 1, 0], [0, 3, 0, 1, 1, 0, 3, 1, 2, 2, 0, 1]]


documents = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@given(documents, st.randoms(use_true_random=False), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_batches_order_and_padding_change_nothing(lengths, shuffler, seed):
    torch.manual_seed(seed)
    cfg = EditConfig(threshold=0.2, top_k=4, temperature=3.0, seed=seed, max_edit_fraction=0.5)
    ids = [torch.randint(V, (1, n)) for n in lengths]
    logits = [torch.randn(1, n, V) for n in lengths]
    alone = [edit_tokens(ids[i], logits[i], cfg, [f"doc {i}"]) for i in range(len(lengths))]

    order = list(range(len(lengths)))
    shuffler.shuffle(order)
    size = shuffler.randint(1, len(lengths))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        width = max(lengths[i] for i in batch) + shuffler.randint(0, 3)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        padded_ids, padded_logits = (
            torch.full((len(batch), width), -100),
            torch.full((len(batch), width, V), torch.nan),
        )
        for row, i in enumerate(batch):
            left = shuffler.choice([0, width - lengths[i]])
            here = slice(left, left + lengths[i])
            mask[row, here], padded_ids[row, here], padded_logits[row, here] = 1, ids[i][0], logits[i][0]
        results = edit_tokens(padded_ids, padded_logits, cfg, [f"doc {i}" for i in batch], mask)
        for row, i in enumerate(batch):
            for together, single in zip(results, alone[i], strict=True):
                assert (together[row][mask[row].bool()] == single[0]).all()
        assert (results[0][mask == 0] == -100).all()
        assert not results[1][mask == 0].any()


def test_a_token_whose_left_neighbour_is_masked_is_not_scored():
    mask = torch.tensor([[0, 1, 1, 0, 1, 1]])
    _, candidates, _ = edit_tokens(
        torch.zeros(1, 6, dtype=torch.long), torch.zeros(1, 6, V), ALL, ["a"], mask
    )
    assert candidates.tolist() == [[False, False, True, False, False, True]]


def test_dropped_tokens_are_minus_one():
    p = [0.9989, 0.0005, 0.0002, 0.0002, 0.0002]
    new, candidates, changed = edit_tokens(
        torch.tensor([[1, 1, 0, 1]]), logits_of(p, 4), EditConfig.preset("filter", top_k=V), ["a"]
    )
    assert new.tolist() == [[1, -1, 0, -1]]
    assert not candidates.any()
    assert not changed.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_normalised_in_float32(dtype):
    logits = torch.zeros(1, 200, 4000, dtype=dtype)
    cfg = EditConfig(threshold=1 / 4001, top_k=8)
    # Half precision cannot tell 1/4000 from the thresholds on either side of it.
    ids = torch.zeros(1, 200, dtype=torch.long)
    assert edit_tokens(ids, logits, cfg, ["a"])[1].sum() == 199
    assert edit_tokens(ids, logits, cfg.replace(threshold=1 / 3999), ["a"])[1].sum() == 0


def test_tokens_that_the_prior_excludes_are_never_drawn():
    logits = torch.zeros(1, 500, V)
    logits[..., 3:] = -torch.inf
    new, _, changed = edit_tokens(torch.zeros(1, 500, dtype=torch.long), logits, ALL, ["a"])
    assert changed.any()
    assert new.max() == 2


def test_dtype_of_the_ids_is_kept_and_the_input_left_alone():
    ids = torch.zeros(1, 50, dtype=torch.int32)
    new, candidates, changed = edit_tokens(ids, torch.zeros(1, 50, V), ALL, ["a"])
    assert new.dtype == torch.int32
    assert candidates.dtype == changed.dtype == torch.bool
    assert changed.any()
    assert not ids.any()


def test_empty_batches_and_documents_pass_through():
    none = edit_tokens(torch.zeros(0, 4, dtype=torch.long), torch.zeros(0, 4, V), ALL, [])
    assert none[0].shape == (0, 4)
    ids = torch.zeros(1, 3, dtype=torch.long)
    empty = edit_tokens(ids, torch.zeros(1, 3, V), ALL, ["a"], torch.zeros(1, 3))
    assert not empty[1].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_that_are_no_numbers_name_the_document_the_token_and_the_dtype(bad, dtype):
    logits = torch.zeros(2, 4, V, dtype=dtype)
    logits[1, 2, 3] = bad
    message = re.escape(f"document 'b': the logits ({dtype}) that score token 3 are NaN or infinite")
    with pytest.raises(ToEditError, match=message):
        edit_tokens(torch.zeros(2, 4, dtype=torch.long), logits, ALL, ["a", "b"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"logits": torch.zeros(2, 4, V)},
            r"must be \(B, T\), \(B, T, V\) and \(B, T\), not \(2, 3\), \(2, 4, 5\)",
        ),
        ({"attention_mask": torch.ones(2, 4)}, r"not \(2, 3\), \(2, 3, 5\) and \(2, 4\)"),
        ({"ids": torch.zeros(2, 3)}, "ids are torch.float32"),
        ({"ids": torch.zeros(2, 3, dtype=torch.uint8)}, "ids are torch.uint8"),
        ({"logits": torch.zeros(2, 3, V, dtype=torch.long)}, "logits torch.int64"),
        ({"doc_ids": ["a"]}, "there are 1 doc_ids for 2 documents"),
        ({"doc_ids": ["a", "a"]}, "document id 'a' is given twice"),
        ({"doc_ids": [1, "1"]}, "document id '1' is given twice"),
        ({"doc_ids": [1.5, 2]}, r"a document id is a whole number or text, not 1\.5"),
        ({"cfg": EditConfig(top_k=8)}, "top_k is 8, more than the 5 tokens of the vocabulary"),
        ({"ids": torch.tensor([[0, 1, 2], [0, 5, 1]])}, "ids go from 0 to 5, but the logits have 5 columns"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(change, message):
    fitting = {
        "ids": torch.zeros(2, 3, dtype=torch.long),
        "logits": torch.zeros(2, 3, V),
        "cfg": ALL,
        "doc_ids": ["a", "b"],
    }
    with pytest.raises(ToEditError, match=message):
        edit_tokens(**{**fitting, **change})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_edit_on_cuda_equals_the_one_on_the_cpu():
    ids, logits = torch.randint(50, (3, 40)), 3 * torch.randn(3, 40, 50)
    cfg = EditConfig(threshold=0.05, temperature=3.0)
    here = edit_tokens(ids, logits, cfg, range(3))
    there = edit_tokens(ids.cuda(), logits.cuda(), cfg, range(3))
    assert all(b.is_cuda and (a == b.cpu()).all() for a, b in zip(here, there, strict=True))
