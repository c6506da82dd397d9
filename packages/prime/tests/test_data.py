from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from implicit_prime.data import PromptRow, check_context, read_prompts
from implicit_prime.errors import PrimeError, PrimeWarning


def test_prompts_become_tokens_beside_their_answers(words: PreTrainedTokenizerFast) -> None:
    rows = read_prompts([{"prompt": "w0 w2", "answer": 7}, {"prompt": [9], "answer": "x"}], words, 4)
    assert [(row.ids, row.answer) for row in rows] == [((3, 5), 7), ((9,), "x")]


def test_prompts_that_are_too_long_are_left_out_and_told(words: PreTrainedTokenizerFast) -> None:
    rows = [{"prompt": "w0 w1 w2", "answer": 0}, {"prompt": "w3", "answer": 1}]
    with pytest.warns(PrimeWarning, match="1 of 2 prompts are left out"):
        assert [row.answer for row in read_prompts(rows, words, 2)] == [1]
    with pytest.raises(PrimeError, match="all of more than max_prompt_length=2"):
        read_prompts(rows[:1], words, 2)


def test_rows_that_cannot_be_used_are_named(words: PreTrainedTokenizerFast) -> None:
    with pytest.raises(PrimeError, match="train_dataset, row 1, has no 'answer'"):
        read_prompts([{"prompt": "w0", "answer": 0}, {"prompt": "w0", "answer": None}], words, 9)
    with pytest.raises(PrimeError, match="row 0, has no 'prompt'"):
        read_prompts([{"question": "w0", "answer": 0}], words, 9)
    with pytest.raises(PrimeError, match="tests: row '0'"):
        read_prompts([{"prompt": "", "answer": 0}], words, 9, "tests")
    with pytest.raises(PrimeError, match="row 1: the prompt is 5; it must be text, messages or token ids"):
        read_prompts([{"prompt": "w0", "answer": 0}, {"prompt": 5, "answer": 0}], words, 9)
    with pytest.raises(PrimeError, match="no prompt to use"):
        read_prompts([], words, 9)


def test_a_prompt_that_leaves_no_room_for_a_response_is_told_before_the_run():
    rows = [PromptRow((1, 2), "x"), PromptRow((1, 2, 3), "x")]
    check_context(rows, "tests", 5, 8)
    check_context(rows, "tests", 5, None)
    with pytest.raises(PrimeError, match=r"tests: the longest prompt has 3 tokens.*more than the 7 that"):
        check_context(rows, "tests", 5, 7)
