"""Pairs of right and wrong responses, and data with as many of each."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_prm.balancing import balanced_indices
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.pairing import pair_indices, pair_rows

RESPONSES = st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=30)


def counts(responses: list[tuple[bool, int]]) -> dict[int, tuple[int, int]]:
    """Right and wrong responses of each prompt."""
    prompts = {group for _, group in responses}
    return {group: (responses.count((True, group)), responses.count((False, group))) for group in prompts}


@given(responses=RESPONSES, seed=st.integers(0, 9), most=st.integers(1, 8))
def test_every_pair_is_a_right_and_a_wrong_response_of_one_prompt_and_their_number_is_known(
    responses: list[tuple[bool, int]], seed: int, most: int
) -> None:
    labels, groups = map(list, zip(*responses, strict=True))
    number = counts(responses)
    expected = {
        "one_to_one": sum(min(sides) for sides in number.values()),
        "all": sum(right * wrong for right, wrong in number.values()),
        "balanced": sum(min(right * wrong, most) for right, wrong in number.values()),
    }
    for how, pairs_expected in expected.items():
        options = {"max_pairs": most} if how == "balanced" else {}
        if not pairs_expected:
            with pytest.raises(ImplicitPRMError, match="both right and wrong"):
                pair_indices(labels, groups, how, seed=seed, **options)
            continue
        pairs = pair_indices(labels, groups, how, seed=seed, **options)
        assert len({(right, wrong) for right, wrong in pairs}) == len(pairs) == pairs_expected
        assert all(
            labels[right] and not labels[wrong] and groups[right] == groups[wrong] for right, wrong in pairs
        )
        for group, sides in number.items():
            own = [pair for pair in pairs if groups[pair[0]] == group]
            for side, size in enumerate(sides):
                used = Counter(pair[side] for pair in own).values()
                if how == "one_to_one":
                    assert all(times == 1 for times in used)
                elif own:  # as even as the numbers allow
                    assert max(used) == -(-len(own) // size)
                    assert len(used) == min(len(own), size)


def test_all_is_the_cross_product_in_the_order_of_the_released_script() -> None:
    assert pair_indices([1, 0, 1, 0, 0, 1], [7, 7, 7, 7, 3, 3], "all").tolist() == [
        [0, 1], [0, 3], [2, 1], [2, 3], [5, 4],
    ]  # fmt: skip


def test_pairs_are_shuffled_by_the_seed_alone() -> None:
    labels, groups = [1] * 20 + [0] * 20, [0] * 40
    first = pair_indices(labels, groups, seed=1)
    assert (first == pair_indices(labels, groups, seed=1)).all()
    assert (first != pair_indices(labels, groups, seed=2)).any()
    assert (first[:, 0] != np.arange(20)).any()


def test_soft_labels_are_right_above_one_half() -> None:
    assert pair_indices([0.5, 0.75, 0.25], ["a", "a", "b"], "all").tolist() == [[1, 0]]


def test_grouped_rows_become_paired_rows_with_ids_and_their_other_keys() -> None:
    rows = [
        {"id": "a", "prompt": "p", "dataset": "d", "completions": ["x", "y", "z"], "labels": [1, 0, 0]},
        {"id": "b", "prompt": "q", "dataset": "d", "completions": ["u"], "labels": [1]},
    ]
    assert pair_rows(rows, "all") == [
        {"id": "a-0", "prompt": "p", "dataset": "d", "chosen": "x", "rejected": "y"},
        {"id": "a-1", "prompt": "p", "dataset": "d", "chosen": "x", "rejected": "z"},
    ]


def test_without_a_prompt_that_has_both_kinds_the_error_counts_them() -> None:
    with pytest.raises(ImplicitPRMError) as error:
        pair_indices([1, 1, 0, 0, 0], [0, 0, 1, 1, 2])
    assert "none of 3 prompts" in str(error.value)
    assert "(1 have only right, 2 only wrong ones; 5 responses, 2 right)" in str(error.value)


@pytest.mark.parametrize(
    ("labels", "groups", "options", "words"),
    [
        ([1, 0], [0, 0], {"how": "some"}, "'one_to_one', 'all', 'balanced'"),
        ([1, 0], [0, 0], {"how": "balanced"}, "max_pairs=None"),
        ([1, 0], [0, 0], {"max_pairs": 2}, "else left out"),
        ([1, 0], [0, 0], {"how": "balanced", "max_pairs": 0}, "max_pairs=0"),
        ([1, 2], [0, 0], {}, "label 2 of response 1 is outside"),
        ([float("nan"), 0], [0, 0], {}, "label nan of response 0"),
        ([1, 0], [0], {}, "2 labels and 1 groups"),
        ([], [], {}, "none of 0 prompts"),
    ],
)
def test_what_cannot_be_paired_is_an_error(labels, groups, options, words: str) -> None:
    with pytest.raises(ImplicitPRMError) as error:
        pair_indices(labels, groups, **options)
    assert words in str(error.value)


@given(responses=RESPONSES, seed=st.integers(0, 9), by_prompt=st.booleans())
def test_balanced_groups_have_as_many_right_as_wrong_and_no_fewer_than_they_could(
    responses: list[tuple[bool, int]], seed: int, by_prompt: bool
) -> None:
    labels, prompts = map(list, zip(*responses, strict=True))
    groups = prompts if by_prompt else None
    names = prompts if by_prompt else [0] * len(labels)
    possible = {group: min(sides) for group, sides in counts(list(zip(labels, names, strict=True))).items()}
    if not any(possible.values()):
        with pytest.raises(ImplicitPRMError, match="no balanced data"):
            balanced_indices(labels, groups, seed=seed)
        return
    kept = balanced_indices(labels, groups, seed=seed)
    assert kept.tolist() == sorted(set(kept.tolist()))
    for side in (True, False):
        assert Counter(names[at] for at in kept if labels[at] is side) == Counter(possible)


def test_what_balance_keeps_is_drawn_by_the_seed() -> None:
    labels = [1] + [0] * 50
    assert len({balanced_indices(labels, seed=seed)[1] for seed in range(10)}) > 3
