"""Equivalence with the official script's algorithm, stated again here on plain lists and dictionaries.

The script asks vLLM for the log probabilities of the k most probable tokens, and of the actual one, at every
position; it resamples where p > 0.99 from softmax(log p / beta) over that dictionary, and some strategies
delete where p < 0.001.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toedit import EditConfig, edit_tokens
from toedit.editing import Scores, edit_scores, fulfils
from toedit.sampling import log_weights, probabilities

V, K = 50, 8


def official_prompt_logprobs(ids: list[int], logits: np.ndarray) -> list[dict[int, float] | None]:
    """What vLLM's `prompt_logprobs=K` holds: nothing for the first token, then a dictionary a token."""
    everything: list[dict[int, float] | None] = [None]
    for position in range(1, len(ids)):
        row = logits[position - 1].astype(np.float64)
        log_softmax = row - row.max() - np.log(np.exp(row - row.max()).sum())
        kept = {ids[position], *np.argsort(-log_softmax)[:K].tolist()}
        everything.append({token: float(log_softmax[token]) for token in kept})
    return everything


def official_plan(
    ids: list[int], logits: np.ndarray, beta: float, low: float
) -> list[str | dict[int, float]]:
    """For each token "keep", "drop", or the distribution {token: q} that it is drawn from."""
    plan: list[str | dict[int, float]] = []
    for token, log_p in zip(ids, official_prompt_logprobs(ids, logits), strict=True):
        if log_p is None or low <= np.exp(log_p[token]) <= 0.99:
            plan.append("keep")
        elif np.exp(log_p[token]) < low:
            plan.append("drop")
        else:
            scaled = np.array(list(log_p.values())) / beta
            q = np.exp(scaled - scaled.max())
            plan.append(dict(zip(log_p, (q / q.sum()).tolist(), strict=True)))
    return plan


def confident_document(length: int = 400, seed: int = 0) -> tuple[list[int], np.ndarray]:
    """Random tokens and logits under which many of them are nearly certain, and some nearly impossible."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, V, length)
    logits = random.normal(0, 2, (length, V))
    logits[np.arange(length - 1), ids[1:]] += random.uniform(-8, 16, length - 1)
    return ids.tolist(), logits.astype(np.float32)


def scores_of(ids: list[int], logits: np.ndarray, cfg: EditConfig) -> Scores:
    log_p = np.full(len(ids), np.nan, dtype=np.float32)
    table = torch.from_numpy(logits).log_softmax(-1)[:-1]
    log_p[1:] = table[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()
    rows = np.flatnonzero(fulfils(log_p, cfg))
    top = table[rows - 1].topk(cfg.top_k)
    return Scores(log_p, rows, top.indices.numpy(), top.values.numpy())


@pytest.mark.parametrize(
    ("preset", "beta", "low"), [("official", 1.5, 0.0), ("paper", 1.0, 0.0), ("low_drop", 1.0, 0.001)]
)
def test_candidates_and_q_are_the_official_scripts(preset, beta, low):
    cfg = EditConfig.preset(preset, inclusive=False)
    ids, logits = confident_document()
    plan = official_plan(ids, logits, beta, low)
    scores = scores_of(ids, logits, cfg)
    edited = edit_scores(np.array(ids), scores, cfg, "a")

    candidates = [isinstance(step, dict) for step in plan]
    assert edited.candidate_mask.tolist() == candidates
    assert sum(candidates) > 50
    assert (edited.ids == -1).tolist() == [step == "drop" for step in plan]
    assert ("drop" in plan) == (preset == "low_drop")

    q = probabilities(log_weights(np.array(ids)[scores.rows], scores.top_ids, scores.top_log_p, cfg))
    for row, tokens, shares in zip(scores.rows, scores.top_ids, q, strict=True):
        step = plan[row]
        assert isinstance(step, dict)
        assert set(step) == set(tokens.tolist())
        assert [step[token] for token in tokens.tolist()] == pytest.approx(shares, abs=1e-6)


def test_from_logits_and_from_scores_the_edit_is_the_same():
    cfg = EditConfig.preset("official", temperature=4.0)
    ids, logits = confident_document()
    new, candidates, changed = edit_tokens(torch.tensor([ids]), torch.from_numpy(logits)[None], cfg, ["a"])
    edited = edit_scores(np.array(ids), scores_of(ids, logits, cfg), cfg, "a")
    assert new[0].tolist() == edited.ids.tolist()
    assert candidates[0].tolist() == edited.candidate_mask.tolist()
    assert changed[0].tolist() == edited.changed_mask.tolist()
    assert changed.any()


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_the_original_token_is_rank_one_at_every_candidate(preset):
    cfg = EditConfig.preset(preset, threshold=0.5 + 1e-6)
    ids, logits = confident_document()
    scores = scores_of(ids, logits, cfg)
    assert len(scores.rows) > 100
    assert (scores.top_ids[:, 0] == np.array(ids)[scores.rows]).all()


def test_unlike_the_script_an_improbable_original_is_not_added_to_the_k_candidates():
    # vLLM's dictionary holds the actual token besides the top k, so the script draws from k + 1 here.
    cfg = EditConfig(threshold=1e-3, condition="le", top_k=K)
    ids, logits = confident_document()
    scores = scores_of(ids, logits, cfg)
    official = official_prompt_logprobs(ids, logits)
    outside = [row for row, top in zip(scores.rows, scores.top_ids, strict=True) if ids[row] not in top]
    assert outside
    assert all(len(official[row] or {}) == K + 1 for row in outside)
    edited = edit_scores(np.array(ids), scores, cfg, "a")
    assert edited.changed_mask[outside].all()


def test_dropping_takes_a_token_before_editing_can():
    cfg = EditConfig(threshold=1e-3, condition="le", low="drop", low_threshold=1e-4)
    ids, logits = confident_document()
    scores = scores_of(ids, logits, cfg)
    edited = edit_scores(np.array(ids), scores, cfg, "a")
    assert (edited.ids == -1).any()
    assert edited.candidate_mask.any()
    assert not (edited.candidate_mask & (edited.ids == -1)).any()
