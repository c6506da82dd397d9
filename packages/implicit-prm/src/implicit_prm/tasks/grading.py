"""What is known of a response to a task: whether its answer is right, and where its first error is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grade:
    """The truth about one response.

    correct      whether the final answer is right
    steps        whether each step that the response has is right, given the steps before it
    first_error  index of the first wrong step, the number of steps if they are right but too few, and -1 if
                 nothing is wrong
    """

    correct: bool
    steps: tuple[bool, ...]
    first_error: int


def grade_steps(steps: list[bool], expected: int, correct: bool) -> Grade:
    """The grade of a response with these steps where `expected` are asked for; every step beyond is wrong."""
    judged = tuple(right and index < expected for index, right in enumerate(steps))
    first = judged.index(False) if False in judged else -1
    if first == -1 and len(judged) < expected:
        first = len(judged)
    return Grade(correct, judged, first)
