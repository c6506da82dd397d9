"""Steps of a text: every splitter partitions it, and every token is in exactly one step."""

from __future__ import annotations

import warnings
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning
from implicit_prm.steps import Step, join_steps, split_steps, step_token_ends, token_steps

NAMES = ["paragraph", "line", "step_header", "sentence", "regex:;", "regex:(?=x)"]

# Unicode, all line ends, empty lines, headers, texts without any separator.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(
            [
                "\n",
                "\r\n",
                "\r",
                "\n\n",
                "\n \t\n",
                "Step 1:",
                "## Step 2:",
                "2.",
                ". ",
                "; ",
                "e\u0301",
                "\U0001f600",
            ]
        ),
    ),
    max_size=12,
).map("".join)


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """A text cut into tokens anywhere, some of them of no width, and an EOS."""
    text = draw(TEXTS)
    bounds = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    bounds = [0, *bounds, len(text)]
    return text, [*pairwise(bounds), (len(text), len(text))]


def pieces(text: str, how: object, **more: object) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitPRMWarning)
        return [text[start:end] for start, end in split_steps(text, how, **more)]


@pytest.mark.parametrize("how", NAMES)
@given(text=TEXTS)
def test_steps_partition_the_text(how: str, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitPRMWarning)
        spans = split_steps(text, how)
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert all(left[1] == right[0] for left, right in pairwise(spans))
    assert all(start < end for start, end in spans) or text == ""


@pytest.mark.parametrize("how", [*NAMES, "token"])
@settings(max_examples=50)
@given(case=tokenised(), seed=st.integers(0, 2**32 - 1))
def test_step_rewards_sum_to_the_outcome_and_texts_join_to_the_response(
    how: str, case: tuple[str, list[tuple[int, int]]], seed: int
) -> None:
    text, offsets = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitPRMWarning)
        steps, ends = token_steps(text, offsets, how)
    rewards = [(seed * (2 * token + 1)) % 1009 - 504 for token in range(len(offsets))]  # exact sums
    bounds = [0, *(end + 1 for end in ends)]
    assert bounds == sorted(set(bounds))
    assert (len(steps), bounds[-1]) == (len(ends), len(offsets))
    assert sum(sum(rewards[start:end]) for start, end in pairwise(bounds)) == sum(rewards)
    assert "".join(step.text for step in steps) == text
    assert all(step.text == text[step.start : step.end] for step in steps)


@settings(max_examples=50)
@given(case=tokenised(), how=st.sampled_from([*NAMES, "token"]))
def test_a_token_is_in_the_step_in_which_its_span_begins(
    case: tuple[str, list[tuple[int, int]]], how: str
) -> None:
    text, offsets = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitPRMWarning)
        steps, ends = token_steps(text, offsets, how)
    for token, (begins, _) in enumerate(offsets):
        step = steps[sum(end < token for end in ends)]
        assert step.start <= begins < step.end or begins == step.end == len(text)


@pytest.mark.parametrize(
    ("how", "text", "expected"),
    [
        ("paragraph", "a\n\nb\n \t\n\nc\nd", ["a\n\n", "b\n \t\n\n", "c\nd"]),
        ("paragraph", "a\r\n\r\nb\r\nc", ["a\r\n\r\n", "b\r\nc"]),
        ("paragraph", "\n\na\n\nb\n\n", ["\n\na\n\n", "b\n\n"]),
        ("line", "a\nb\r\nc\rd", ["a\n", "b\r\n", "c\r", "d"]),
        ("line", "a\n\n\nb", ["a\n", "\n\nb"]),
        ("step_header", "Plan.\nStep 1: a\nStep 2: b", ["Plan.\n", "Step 1: a\n", "Step 2: b"]),
        ("step_header", "## Step 1: a\n**Step 2:** b", ["## Step 1: a\n", "**Step 2:** b"]),
        ("step_header", "Step 1:\n\nStep 2: b\nStep 3: c", ["Step 1:\n\nStep 2: b\n", "Step 3: c"]),
        ("paragraph", "Step 1:\n\na\n\nStep 2:\n\n3.\n\nb", ["Step 1:\n\na\n\n", "Step 2:\n\n3.\n\nb"]),
        ("paragraph", "a\n\nb\n\nStep 3:", ["a\n\n", "b\n\nStep 3:"]),
        ("sentence", 'It is 3.5. He said "so!" Then x', ["It is 3.5. ", 'He said "so!" ', "Then x"]),
        ("sentence", "1. Add.\n2. Sum\nAll", ["1. Add.\n", "2. Sum\n", "All"]),
        ("sentence", "\u5bf9\u3002\u9519\u3002", ["\u5bf9\u3002", "\u9519\u3002"]),
        ("regex:;", "48/2=24;24+48=72;", ["48/2=24;", "24+48=72;"]),
        (r"regex:(?=\bThen\b)", "So. Then a Then b", ["So. ", "Then a ", "Then b"]),
        ([(0, 2), (3, 5)], "ab cd!", ["ab ", "cd!"]),
        (lambda text: [(1, 2), (2, len(text))], " ab", [" a", "b"]),
    ],
)  # fmt: skip
def test_where_each_splitter_cuts(how: object, text: str, expected: list[str]) -> None:
    assert pieces(text, how) == expected


def test_a_token_each_is_a_step_and_the_eos_belongs_to_the_last_one() -> None:
    # Three words as a word-level tokenizer gives them, then EOS.
    offsets = [(0, 2), (3, 4), (5, 7), (7, 7)]
    steps, ends = token_steps("12 7 19", offsets, "token")
    assert steps == [Step("12 ", 0, 3), Step("7 ", 3, 5), Step("19", 5, 7)]
    assert ends == [0, 1, 3]


def test_a_step_without_a_token_of_its_own_is_merged_into_the_one_before() -> None:
    # The second token covers "b;c;d": no token begins in "c;", whose characters are those of "b;c;d".
    text, offsets = "a;b;c;d;", [(0, 2), (2, 7), (7, 8)]
    spans = split_steps(text, "regex:;")
    assert spans == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert step_token_ends(offsets, spans) == [0, 1, 2]
    assert token_steps(text, offsets, "regex:;") == (
        [Step("a;", 0, 2), Step("b;c;", 2, 6), Step("d;", 6, 8)],
        [0, 1, 2],
    )


def test_spans_of_a_text_that_was_cut_off_end_where_it_ends() -> None:
    spans = [(0, 2), (2, 6), (6, 8)]
    steps, ends = token_steps("a;bb", [(0, 2), (2, 4)], spans, truncated=True)
    assert (steps, ends) == ([Step("a;", 0, 2), Step("bb", 2, 4)], [0, 1])
    with pytest.raises(ImplicitPRMError, match="does not fit"):
        token_steps("a;bb", [(0, 2), (2, 4)], spans)


def test_text_without_a_boundary_is_one_step_and_says_so_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("default")
        spans = [split_steps(text) for text in ("one", "another") for _ in range(3)]
    assert (spans[0], spans[-1]) == ([(0, 3)], [(0, 7)])
    assert [warning.category for warning in caught] == [ImplicitPRMWarning]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("paragraphs", "'paragraph', 'line'"),
        ("regex:(", "no regular expression"),
        ("token", "offsets"),
        ([(0, 2), (1, 3)], "(1, 3) does not fit"),
        ([(0, 9)], "by 3"),
        ([(1, 1)], "start < end"),
        ([1, 2], "1 is no step span"),
        ([("0", "2")], "('0', '2') is no step span"),
        ([], "at least one step"),
        (lambda text: [], "at least one step"),
    ],
)
def test_what_cannot_split_is_an_error_that_says_what_can(how: object, words: str) -> None:
    with pytest.raises(ImplicitPRMError) as error:
        split_steps("abc", how)
    assert words in str(error.value)


def test_given_steps_join_to_a_text_that_splits_back_into_them() -> None:
    text, spans = join_steps(["a\n\nb", "c", "d"])
    assert text == "a\n\nb\n\nc\n\nd"
    assert [text[start:end] for start, end in spans] == ["a\n\nb\n\n", "c\n\n", "d"]
    assert split_steps(text, spans) == spans
