"""Which rows go through a model together."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_prm import ImplicitPRMError
from implicit_prm.backends import batching
from implicit_prm.backends.batching import Row, plan, read_row

rows_of_prompts = st.lists(
    st.tuples(
        st.sampled_from([(1,), (1, 2), tuple(range(40)), tuple(range(90)), (7,) * 90]),
        st.lists(st.integers(0, 9), min_size=1, max_size=30),
    ),
    max_size=40,
)


def row(prompt: tuple[int, ...], completion: list[int]) -> Row:
    ids = (*prompt, *completion)
    found = read_row(ids, [at >= len(prompt) for at in range(len(ids))], 0)
    assert found is not None
    return found


@settings(max_examples=60, deadline=None)
@given(pairs=rows_of_prompts, batch_size=st.integers(1, 9), share=st.booleans())
def test_every_row_is_scored_once_whole_and_in_batches_of_the_given_size(pairs, batch_size, share):
    rows = [row(prompt, completion) for prompt, completion in pairs]
    seen = []
    for block in plan(rows, batch_size, share):
        for batch in block.batches:
            assert 1 <= len(batch) <= batch_size
            lengths = [len(piece.fed) for piece in batch]
            assert lengths == sorted(lengths, reverse=True)
            for piece in batch:
                past = () if piece.prompt < 0 else block.prompts[piece.prompt]
                assert past + piece.fed == piece.row.ids[:-1]
                asked = [token for token in piece.targets if token != -100]
                assert asked == list(piece.row.ids[piece.row.first :])
                seen.append(piece.row)
    assert sorted(map(id, seen)) == sorted(map(id, rows))


def test_the_prompt_of_many_responses_is_fed_once():
    prompt = tuple(range(100))
    rows = [row(prompt, [5] * length) for length in (3, 9, 4, 8)]
    (block,) = plan(rows, batch_size=2)
    assert block.prompts == [prompt[:-1]]
    # Each response brings the prompt's last token along, and its own last token is only predicted.
    assert [[len(piece.fed) for piece in batch] for batch in block.batches] == [[9, 8], [4, 3]]
    (plain,) = plan(rows, batch_size=2, share=False)
    assert plain.prompts == []
    assert [[len(piece.fed) for piece in batch] for batch in plain.batches] == [[108, 107], [103, 102]]


def test_a_prompt_is_not_kept_where_it_saves_little():
    short = [row((1, 2, 3), [4] * length) for length in (1, 2, 3)]
    single = [row(tuple(range(500)), [4])]
    (block,) = plan(short + single, batch_size=8)
    assert block.prompts == []


def test_sorted_batches_pad_little():
    lengths = [1 + 37 * at % 300 for at in range(256)]
    rows = [row((1,), [2] * length) for length in lengths]

    def padding(batches):
        computed = sum(len(batch) * max(map(len, batch)) for batch in batches)
        return 1 - sum(lengths) / computed

    in_order = [[(0,) * length for length in lengths[at : at + 8]] for at in range(0, 256, 8)]
    (block,) = plan(rows, batch_size=8)
    assert padding(in_order) > 0.35
    assert padding([[piece.fed for piece in batch] for batch in block.batches]) < 0.03


def test_marks_must_fit_the_tokens_and_leave_the_first_out():
    assert read_row([1, 2], [False, False], 0) is None
    with pytest.raises(ImplicitPRMError, match="row 3 has 2 tokens and a mask of 1"):
        read_row([1, 2], [True], 3)
    with pytest.raises(ImplicitPRMError, match="row 4 asks for its first token"):
        read_row([1, 2], [True, True], 4)


def test_marks_may_have_gaps_and_what_follows_the_last_is_left_out():
    found = read_row([1, 2, 3, 4, 5], [False, True, False, True, False], 0)
    assert found == Row((1, 2, 3, 4), (False, True, False, True), 1)
    (block,) = plan([found], batch_size=1)
    assert block.batches[0][0].fed == (1, 2, 3)
    assert block.batches[0][0].targets == (2, -100, 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=9), st.integers(1, 5))
def test_no_other_cuts_cost_less(lengths, batch_size):
    lengths = sorted(lengths, reverse=True)

    def cost(bounds):
        return sum((stop - start) * lengths[start] + batching._PASS for start, stop in bounds)

    def all_cuts(start):
        if start == len(lengths):
            yield []
        for stop in range(start + 1, min(start + batch_size, len(lengths)) + 1):
            for rest in all_cuts(stop):
                yield [(start, stop), *rest]

    found = [(part.start, part.stop) for part in batching.cheapest_cuts(lengths, batch_size)]
    assert found in list(all_cuts(0))
    assert cost(found) == min(map(cost, all_cuts(0)))
