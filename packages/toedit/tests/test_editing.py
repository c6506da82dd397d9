from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toedit import EditConfig, Scores, ToEditError, edit_scores, swap_probabilities
from toedit.editing import DROPPED, fulfils

NAN = float("nan")


def make_scores(log_p, cfg=None, k=4, ids=None, seed=0) -> Scores:
    """Scores whose rows (all that fulfil the config) have the original first and k - 1 others after it."""
    log_p = np.asarray(log_p, dtype=np.float32)
    ids = np.arange(len(log_p)) if ids is None else ids
    rows = np.flatnonzero(fulfils(log_p, cfg or EditConfig()))
    random = np.random.default_rng(seed)
    top_ids = np.concatenate([ids[rows, None], 1000 + random.integers(0, 9, (len(rows), k - 1)).cumsum(1)], 1)
    rest = -np.sort(-random.dirichlet(np.ones(k - 1), len(rows)), axis=1) * -np.expm1(
        log_p[rows, None].astype(float)
    )
    top_log_p = np.concatenate([log_p[rows, None], np.log(rest + 1e-12)], 1).astype(np.float32)
    return Scores(log_p, rows, top_ids, top_log_p)


def easy(n, p=0.99, **settings):
    """n tokens of probability p, all candidates: (ids, scores, cfg)."""
    cfg = EditConfig(top_k=4, threshold=0.9, **settings)
    return np.arange(n), make_scores(np.full(n, math.log(p)), cfg), cfg


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_probability_at_the_threshold_counts_as_equal_to_it(threshold, dtype):
    at, above, below = (np.log([p]).astype(dtype) for p in (threshold, threshold + 2e-6, threshold - 2e-6))
    inclusive = {c: EditConfig(threshold=threshold, condition=c) for c in ("ge", "le")}
    strict = {c: EditConfig(threshold=threshold, condition=c, inclusive=False) for c in ("ge", "le")}
    assert fulfils(at, inclusive["ge"])[0]
    assert fulfils(at, inclusive["le"])[0]
    assert not fulfils(at, strict["ge"])[0]
    assert not fulfils(at, strict["le"])[0]
    for cfg in (inclusive, strict):
        assert fulfils(above, cfg["ge"])[0]
        assert not fulfils(below, cfg["ge"])[0]
        assert fulfils(below, cfg["le"])[0]
        assert not fulfils(above, cfg["le"])[0]


def test_a_token_without_a_score_fulfils_nothing_and_certainty_fulfils_one():
    assert fulfils(np.array([NAN, 0.0, -1e-3]), EditConfig(threshold=1.0)).tolist() == [False, True, False]
    assert fulfils(np.array([NAN, 0.0]), EditConfig(threshold=1.0, condition="le")).tolist() == [False, True]
    assert fulfils(np.array([NAN, -np.inf]), EditConfig(threshold=0.1, condition="le")).tolist() == [
        False,
        True,
    ]


def test_a_threshold_above_one_changes_nothing_whatever_the_scores():
    ids, scores, _ = easy(500, p=1.0)
    edited = edit_scores(ids, scores, EditConfig(threshold=1.0000001, temperature=100.0), "a")
    assert (edited.ids == ids).all()
    assert not edited.candidate_mask.any()


def test_only_candidates_change_and_the_probability_of_the_new_token_is_told():
    cfg = EditConfig(top_k=2, temperature=100.0)
    log_p = np.log([NAN, 0.99, 0.5, 0.999, 0.98]).astype(np.float32)
    rest = np.log([[0.01], [0.001]]).astype(np.float32)
    scores = Scores(log_p, np.array([1, 3]), np.array([[1, 7], [3, 8]]), np.c_[log_p[[1, 3]], rest])
    seen = [edit_scores(np.arange(5), scores, cfg, doc) for doc in range(50)]
    for edited in seen:
        assert edited.candidate_mask.tolist() == [False, True, False, True, False]
        assert (edited.changed_mask == (edited.ids != np.arange(5))).all()
        expected = np.where(edited.changed_mask, [NAN, 0.01, NAN, 0.001, NAN], [NAN, 0.99, 0.5, 0.999, 0.98])
        assert edited.p_new == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert {tuple(edited.ids) for edited in seen} == {
        (0, a, 2, b, 4) for a in (1, 7) for b in (3, 8)
    }  # at temperature 100 all four come up in 50 documents


def test_k_of_one_never_changes_anything():
    ids, scores, cfg = easy(2000, temperature=1e6)
    edited = edit_scores(ids, scores, cfg.replace(top_k=1), "a")
    assert edited.candidate_mask.all()
    assert not edited.changed_mask.any()


def test_without_the_original_every_candidate_changes():
    ids, scores, cfg = easy(500, exclude_original=True)
    edited = edit_scores(ids, scores, cfg, "a")
    assert edited.changed_mask.all()


@pytest.mark.parametrize("temperature", [1.0, 1.5, 5.0])
def test_the_number_of_changes_is_what_one_minus_q_of_the_original_says(temperature):
    random = np.random.default_rng(1)
    log_p = np.log(random.uniform(0.9, 1.0, 40_000))
    cfg = EditConfig(top_k=4, threshold=0.9, temperature=temperature)
    scores = make_scores(log_p, cfg)
    swap = swap_probabilities(np.arange(40_000), scores, cfg)
    changed = edit_scores(np.arange(40_000), scores, cfg, "a").changed_mask.sum()
    assert abs(changed - swap.sum()) < 4 * math.sqrt((swap * (1 - swap)).sum())


def test_one_scoring_serves_every_stricter_threshold():
    random = np.random.default_rng(2)
    log_p = np.log(random.uniform(0.5, 1.0, 3000)).astype(np.float32)
    ids, loose = np.arange(3000), EditConfig(threshold=0.6, top_k=4, temperature=5.0)
    scores = make_scores(log_p, loose)
    for threshold in (0.7, 0.9, 0.99):
        cfg = loose.replace(threshold=threshold)
        few = np.exp(log_p[scores.rows]) >= threshold
        alone = Scores(log_p, scores.rows[few], scores.top_ids[few], scores.top_log_p[few])
        a, b = edit_scores(ids, scores, cfg, "a"), edit_scores(ids, alone, cfg, "a")
        assert (a.ids == b.ids).all()
        assert a.candidate_mask.sum() == few.sum() > 0


@pytest.mark.parametrize("threshold", [0.1, 0.01])
def test_the_condition_le_edits_the_improbable_tokens(threshold):
    cfg = EditConfig(threshold=threshold, condition="le", top_k=2)
    log_p = np.log(np.array([0.5, threshold / 2, 0.99], dtype=np.float32))
    scores = Scores(
        log_p, np.array([1]), np.array([[50, 51]]), np.log(np.array([[0.6, 0.3]], dtype=np.float32))
    )
    edited = edit_scores(np.arange(3), scores, cfg, "a")
    assert edited.candidate_mask.tolist() == [False, True, False]
    assert edited.ids[1] in (50, 51)
    assert swap_probabilities(np.arange(3), scores, cfg)[1] == 1.0


def test_protected_tokens_are_no_candidates():
    ids, scores, cfg = easy(200, exclude_original=True)
    protected = ids % 3 == 0
    edited = edit_scores(ids, scores, cfg, "a", protected=protected)
    assert (edited.candidate_mask == ~protected).all()
    assert (edited.ids[protected] == ids[protected]).all()
    assert not swap_probabilities(ids, scores, cfg, protected=protected)[protected].any()


def test_special_tokens_are_neither_drawn_nor_replaced_unless_allowed():
    ids, scores, cfg = easy(2000, temperature=1e6)
    specials = frozenset({5, 6, *scores.top_ids[:, 1].tolist()})
    edited = edit_scores(ids, scores, cfg, "a", specials=specials)
    assert not edited.candidate_mask[[5, 6]].any()
    assert edited.changed_mask.any()
    assert not np.isin(edited.ids[edited.changed_mask], list(specials)).any()
    allowed = edit_scores(ids, scores, cfg.replace(avoid_specials=False), "a", specials=specials)
    assert allowed.candidate_mask.all()
    assert np.isin(allowed.ids[allowed.changed_mask], list(specials)).any()


def test_low_tokens_are_dropped_on_request_and_protected_ones_never():
    log_p = np.log([NAN, 0.0005, 0.0015, 0.001, 0.5, 0.0001, 0.0001]).astype(np.float32)
    protected = np.array([False] * 6 + [True])
    scores = make_scores(log_p)
    edited = edit_scores(np.arange(7), scores, EditConfig.preset("low_drop"), "a", protected=protected)
    assert edited.ids.tolist() == [0, DROPPED, 2, 3, 4, DROPPED, 6]
    assert not edited.candidate_mask.any()
    assert not edited.changed_mask.any()
    assert np.isnan(edited.p_new).tolist() == [True, True, False, False, False, True, False]
    kept = edit_scores(np.arange(7), scores, EditConfig(), "a")
    assert kept.ids.tolist() == list(range(7))


def test_the_filter_drops_and_edits_nothing():
    cfg = EditConfig.preset("filter", temperature=100.0)
    log_p = np.log(np.tile([0.9999, 0.0001], 500)).astype(np.float32)
    edited = edit_scores(np.arange(1000), make_scores(log_p), cfg, "a")
    assert (edited.ids == np.where(np.arange(1000) % 2, DROPPED, np.arange(1000))).all()


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.29, 1.0])
def test_at_most_the_allowed_share_of_tokens_changes_and_the_rest_are_a_subset(fraction):
    ids, scores, cfg = easy(100, exclude_original=True)
    free = edit_scores(ids, scores, cfg, "a")
    limited = edit_scores(ids, scores, cfg.replace(max_edit_fraction=fraction), "a")
    assert limited.changed_mask.sum() == round(100 * fraction)  # all 100 would change
    assert (limited.candidate_mask == free.candidate_mask).all()
    assert (limited.ids == np.where(limited.changed_mask, free.ids, ids)).all()
    assert limited.p_new[~limited.changed_mask] == pytest.approx(0.99)


def test_which_changes_are_let_through_is_drawn_by_lot():
    ids, scores, cfg = easy(100, exclude_original=True, max_edit_fraction=0.2)
    through = sum(edit_scores(ids, scores, cfg, doc).changed_mask.astype(int) for doc in range(500))
    # Binomial(500, 0.2): mean 100, standard deviation 8.9; five of them for the extremes of 100.
    assert abs(through - 100).max() < 45


def test_the_limit_counts_dropped_tokens_too():
    cfg = EditConfig.preset("low_drop", max_edit_fraction=0.25)
    edited = edit_scores(np.arange(8), make_scores(np.full(8, math.log(1e-5))), cfg, "a")
    assert (edited.ids == DROPPED).sum() == 2


@given(
    st.integers(1, 60),
    st.lists(st.integers(0, 60), max_size=4),
    st.integers(0, 2**31),
    st.sampled_from(["a", 7]),
)
@settings(max_examples=40, deadline=None)
def test_a_document_edited_in_pieces_is_edited_as_a_whole(n, cuts, seed, doc_id):
    random = np.random.default_rng(seed)
    cfg = EditConfig(top_k=4, threshold=0.9, temperature=20.0, seed=seed, low="drop")
    log_p = np.log(random.uniform(0, 1, n) ** 0.1).astype(np.float32)
    scores, ids = make_scores(log_p, cfg, seed=seed), np.arange(n)
    whole = edit_scores(ids, scores, cfg, doc_id)
    bounds = sorted({0, n, *(cut for cut in cuts if cut < n)})
    for start, end in itertools.pairwise(bounds):
        inside = (scores.rows >= start) & (scores.rows < end)
        piece = Scores(
            log_p[start:end], scores.rows[inside] - start, scores.top_ids[inside], scores.top_log_p[inside]
        )
        part = edit_scores(ids[start:end], piece, cfg, doc_id, offset=start)
        assert (part.ids == whole.ids[start:end]).all()
        assert (part.candidate_mask == whole.candidate_mask[start:end]).all()


def test_the_order_in_which_a_backend_returns_the_top_tokens_does_not_matter():
    ids, scores, cfg = easy(300, temperature=50.0)
    scores.top_log_p[:, 2] = scores.top_log_p[:, 1]  # two of them equally probable
    turned = Scores(scores.log_p, scores.rows, scores.top_ids[:, ::-1], scores.top_log_p[:, ::-1])
    assert (edit_scores(ids, scores, cfg, "a").ids == edit_scores(ids, turned, cfg, "a").ids).all()


def test_more_top_tokens_than_k_are_cut_to_the_k_most_probable():
    ids, scores, cfg = easy(300, temperature=50.0)
    fewer = Scores(scores.log_p, scores.rows, scores.top_ids[:, :2], scores.top_log_p[:, :2])
    cfg = cfg.replace(top_k=2)
    assert (edit_scores(ids, scores, cfg, "a").ids == edit_scores(ids, fewer, cfg, "a").ids).all()


def test_seed_and_document_change_the_edit_and_the_same_give_the_same():
    ids, scores, cfg = easy(300, temperature=50.0)
    first = edit_scores(ids, scores, cfg, "a").ids
    assert (edit_scores(ids, scores, cfg, "a").ids == first).all()
    assert (edit_scores(ids, scores, cfg, "b").ids != first).any()
    assert (edit_scores(ids, scores, cfg.replace(seed=1), "a").ids != first).any()


def test_the_input_is_left_alone():
    ids, scores, cfg = easy(50, exclude_original=True)
    before = ids.copy(), scores.log_p.copy(), scores.top_ids.copy(), scores.top_log_p.copy()
    edit_scores(ids, scores, cfg, "a")
    assert all(
        (a == b).all()
        for a, b in zip(before, (ids, scores.log_p, scores.top_ids, scores.top_log_p), strict=True)
    )


def test_a_document_without_candidates_needs_no_top_tokens():
    none = np.empty(0, np.int64), np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
    scores = Scores(np.log([NAN, 0.5]).astype(np.float32), *none)
    assert edit_scores(np.array([3, 4]), scores, EditConfig(), "a").ids.tolist() == [3, 4]
    assert edit_scores(none[0], Scores(np.empty(0, np.float32), *none), EditConfig(), "a").ids.tolist() == []


def test_scores_that_lack_candidates_are_refused():
    ids, scores, cfg = easy(10)
    lacking = Scores(scores.log_p, scores.rows[:7], scores.top_ids[:7], scores.top_log_p[:7])
    with pytest.raises(
        ToEditError, match=r"no top tokens for 3 of 10 candidates; score again .* threshold=0\.9"
    ):
        edit_scores(ids, lacking, cfg, "a")
    with pytest.raises(ToEditError, match="top_k is 8, but the scores hold 4 tokens"):
        edit_scores(ids, scores, cfg.replace(top_k=8), "a")
