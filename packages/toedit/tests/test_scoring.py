from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toedit import EditConfig
from toedit.scoring import score_rows


def sharp(rows, seed=0, width=6, vocabulary=11):
    """Hidden rows, targets, a head whose distributions have one clear favourite, and their log-softmax."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=random)
    weight = torch.randn(vocabulary, width, generator=random) * 5
    log_p = (hidden.double() @ weight.double().T).log_softmax(-1)
    return hidden, log_p.argmax(-1), lambda h: h @ weight.T, log_p


@settings(deadline=None)
@given(rows=st.integers(0, 40), chunk=st.integers(1, 50), seed=st.integers(0, 9))
def test_scores_equal_the_full_log_softmax_whatever_the_chunk(rows, chunk, seed):
    hidden, targets, head, log_p = sharp(rows, seed)
    cfg = EditConfig(threshold=0.9, top_k=3)
    scores = score_rows(hidden, targets, head, cfg, chunk)
    own = log_p[torch.arange(rows), targets].numpy()
    assert scores.log_p == pytest.approx(own, abs=1e-5)
    assert scores.rows.tolist() == np.flatnonzero(own >= np.log(0.9)).tolist()
    best, ids = log_p[torch.from_numpy(scores.rows)].topk(3)
    assert scores.top_ids.tolist() == ids.tolist()
    assert scores.top_log_p == pytest.approx(best.numpy(), abs=1e-5)


def test_the_head_never_sees_more_rows_than_a_chunk():
    hidden, targets, head, _ = sharp(50)
    seen = []

    def watched(rows):
        seen.append(len(rows))
        return head(rows)

    score_rows(hidden, targets, watched, EditConfig(), 16)
    assert seen == [16, 16, 16, 2]


def test_top_tokens_are_looked_up_at_candidates_alone(monkeypatch):
    hidden, targets, head, _ = sharp(50)
    rows = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda x, *a, **k: rows.append(len(x)) or topk(x, *a, **k))
    scores = score_rows(hidden, targets, head, EditConfig(threshold=0.99, top_k=2), 50)
    assert 0 < len(scores.rows) < 50
    assert rows == [len(scores.rows)]


def test_low_precision_logits_are_normalised_in_float32():
    hidden, targets, head, _ = sharp(20)
    low = score_rows(hidden, targets, lambda h: head(h).bfloat16(), EditConfig(threshold=0.5), 20)
    full = head(hidden).bfloat16().double().log_softmax(-1)[torch.arange(20), targets]
    assert low.log_p.dtype == np.float32
    assert low.log_p == pytest.approx(full.numpy(), abs=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_without_a_distribution_has_nan_and_the_others_their_scores(bad):
    logits = torch.zeros(3, 5)
    logits[1] = bad
    scores = score_rows(logits, torch.zeros(3, dtype=torch.long), lambda h: h, EditConfig(), 2)
    assert scores.log_p == pytest.approx([-np.log(5), np.nan, -np.log(5)], nan_ok=True)
    assert len(scores.rows) == 0


def test_a_token_without_a_chance_has_minus_infinity():
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    scores = score_rows(logits, torch.tensor([1]), lambda h: h, EditConfig(), 1)
    assert scores.log_p.tolist() == [-np.inf]
