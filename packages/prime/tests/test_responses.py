from __future__ import annotations

import numpy as np
import torch

from implicit_prime.responses import PromptGroup, Responses


def group(
    prompt: int, prompt_ids: list[int], responses: list[list[int]], outcomes: list[float]
) -> PromptGroup:
    return PromptGroup(
        prompt=prompt,
        prompt_ids=tuple(prompt_ids),
        ids=[tuple(ids) for ids in responses],
        log_probs=[-np.arange(1, len(ids) + 1, dtype=np.float32) for ids in responses],
        truncated=[False] * len(responses),
        outcomes=np.array(outcomes),
    )


ONE = group(7, [5, 6, 7], [[8, 1], [9]], [1.0, 0.0])
TWO = group(3, [4], [[2, 3, 1], [2, 1], [1]], [0.5, float("nan"), 0.0])


def test_prompts_are_padded_on_the_left_and_responses_on_the_right() -> None:
    batch = Responses.from_groups([ONE, TWO])
    assert batch.input_ids.tolist() == [
        [5, 6, 7, 8, 1, 0],
        [5, 6, 7, 9, 0, 0],
        [0, 0, 4, 2, 3, 1],
        [0, 0, 4, 1, 0, 0],
    ]
    assert batch.attention_mask.tolist() == (batch.input_ids > 0).tolist()
    assert batch.mask.int().tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]
    assert batch.log_probs.tolist() == [[-1, -2, 0], [-1, 0, 0], [-1, -2, -3], [-1, 0, 0]]
    assert batch.prompt_length == 3


def test_a_response_without_a_verdict_is_left_out_and_its_group_keeps_the_others() -> None:
    batch = Responses.from_groups([ONE, TWO])
    assert batch.outcomes.tolist() == [1.0, 0.0, 0.5, 0.0]
    assert batch.groups.tolist() == [0, 0, 1, 1]
    assert TWO.accuracy == 0.25
    assert np.isnan(group(0, [4], [[1]], [float("nan")]).accuracy)


def test_a_selection_has_no_column_of_padding_alone_and_the_same_tokens() -> None:
    part = Responses.from_groups([ONE, TWO]).select(torch.tensor([3, 1]))
    assert part.input_ids.tolist() == [[0, 0, 4, 1], [5, 6, 7, 9]]
    assert part.mask.tolist() == [[True], [True]]
    short = Responses.from_groups([ONE, TWO]).select(torch.tensor([3]))
    assert short.input_ids.tolist() == [[4, 1]]


def test_joined_parts_keep_their_tokens_and_their_groups_apart() -> None:
    alone = [Responses.from_groups([TWO]), Responses.from_groups([ONE]), Responses.from_groups([ONE, TWO])]
    whole = Responses.concat(alone)
    assert whole.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    first = 0
    for part in alone:
        again = whole.select(torch.arange(first, first + len(part)))
        assert torch.equal(again.input_ids, part.input_ids)
        assert torch.equal(again.log_probs, part.log_probs)
        first += len(part)


def test_an_empty_response_has_no_tokens_and_no_effect_on_the_others() -> None:
    batch = Responses.from_groups([group(0, [4], [[], [2, 1]], [0.0, 1.0])])
    assert batch.mask.sum(1).tolist() == [0, 2]
    assert len(Responses.from_groups([])) == 0
