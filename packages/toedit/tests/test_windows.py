from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toedit import Scores, ToEditError
from toedit.packing import MAX_WASTE, Workload, batches
from toedit.windows import merge, split

NAN = float("nan")
BOS = 9999


@settings(deadline=None)
@given(length=st.integers(0, 200), window=st.integers(3, 50), overlap=st.integers(0, 40), bos=st.booleans())
def test_every_token_is_scored_once_with_enough_context(length, window, overlap, bos):
    overlap = min(overlap, window - 2)
    ids = np.arange(length)
    windows = split(ids, window, overlap, BOS if bos else None)
    scored = [i for w in windows for i in range(w.start, w.start + len(w.ids) - w.first)]
    assert scored == list(range(0 if bos else 1, length))
    for w in windows:
        assert len(w.ids) <= window
        own = w.ids[1:] if bos else w.ids
        assert (own == np.arange(own[0], own[0] + len(own))).all()
        assert w.ids[w.first] == w.start
        assert (w.ids[0] == BOS) == bos
        context = w.first - bos
        assert context == w.start or context >= max(overlap, 1 - bos)


def test_windows_written_out():
    windows = split(np.arange(10), 5, 2)
    assert [w.ids.tolist() for w in windows] == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8, 9]]
    assert [(w.first, w.start) for w in windows] == [(1, 1), (2, 5), (2, 8)]
    windows = split(np.arange(6), 4, 1, BOS)
    assert [w.ids.tolist() for w in windows] == [[BOS, 0, 1, 2], [BOS, 2, 3, 4], [BOS, 4, 5]]
    assert [(w.first, w.start) for w in windows] == [(1, 0), (2, 3), (2, 5)]


def test_a_document_that_begins_with_the_bos_gets_no_second_one():
    first, second = split(np.array([BOS, 0, 1, 2, 3]), 4, 1, BOS)
    assert first.ids.tolist() == [BOS, 0, 1, 2]
    assert (first.first, first.start) == (1, 1)
    assert second.ids.tolist() == [BOS, 2, 3]
    assert (second.first, second.start) == (2, 4)


def test_a_document_of_one_token_needs_a_bos_to_be_scored():
    assert split(np.array([5]), 8, 2) == []
    assert split(np.array([], dtype=np.int64), 8, 2, BOS) == []
    assert [w.ids.tolist() for w in split(np.array([5]), 8, 2, BOS)] == [[BOS, 5]]


def test_an_overlap_without_room_for_new_tokens_is_refused():
    with pytest.raises(ToEditError, match="overlap is 7, but a window holds 7 tokens"):
        split(np.arange(3), 8, 7, BOS)


def test_merged_scores_stand_at_their_place_in_the_document():
    windows = split(np.arange(10), 5, 2)
    log_p = [np.r_[NAN, -1, -2, -3, -4], np.r_[NAN, NAN, -5, -6, -7], np.r_[NAN, NAN, -8, -9]]
    rows = [[1, 4], [], [3]]
    parts = [
        Scores(
            p.astype(np.float32), np.array(r, np.int64), np.c_[r, r].astype(np.int64), np.zeros((len(r), 2))
        )
        for p, r in zip(log_p, rows, strict=True)
    ]
    merged = merge(10, windows, parts)
    assert merged.log_p.tolist()[1:] == [-float(i) for i in range(1, 10)]
    assert np.isnan(merged.log_p[0])
    assert merged.rows.tolist() == [1, 4, 9]
    assert merged.top_ids.tolist() == [[1, 1], [4, 4], [3, 3]]


def test_a_missing_number_is_told_by_its_token():
    windows = split(np.arange(10), 5, 2)
    empty = np.empty((0, 2))
    good = np.zeros(5, np.float32)
    bad = np.array([0, 0, 0, NAN, 0], np.float32)
    parts = [Scores(p, np.empty(0, np.int64), empty, empty) for p in (good, bad, good[:4])]
    with pytest.raises(ToEditError, match="token 6 are NaN or infinite"):
        merge(10, windows, parts)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 100), max_size=60), budget=st.integers(1, 400))
def test_batches_hold_everything_once_within_the_budget(lengths, budget):
    found = list(batches(lengths, budget))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_many_documents_waste_less_than_the_limit_on_padding():
    lengths = np.random.default_rng(0).integers(10, 1000, 400).tolist()
    workload = Workload()
    for batch in batches(lengths, 4096):
        workload.add([lengths[i] for i in batch])
    assert workload.n_tokens == sum(lengths)
    assert 0 < workload.padding_waste < MAX_WASTE
    assert workload.n_batches < len(lengths) / 3


def test_padding_is_what_the_longest_sequence_leaves_to_the_others():
    workload = Workload()
    workload.add([4, 3, 1])
    workload.add([2])
    assert (workload.n_tokens, workload.n_padding, workload.n_batches) == (10, 4, 2)
    assert workload.padding_waste == pytest.approx(4 / 14)
