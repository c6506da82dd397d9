"""What a task of chains offers, and what is known of a response: its answer, and where its first error is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerFast


class ChainTask(Protocol):
    """Prompts that ask for a chain of steps, each with a known truth. Everything drawn depends on `seed`."""

    splitter: str
    """How a response is split into steps, as `implicit_prm.steps` takes it."""

    def prompts(self, count: int, seed: int) -> list[str]:
        """Prompts to train on."""

    def test_prompts(self, count: int, seed: int) -> list[str]:
        """Prompts to judge on, none of which is trained on."""

    def demonstrations(self, count: int, seed: int) -> list[tuple[str, str]]:
        """(prompt, response) pairs that a generator is fitted to."""

    def solve(self, prompt: str) -> str:
        """The right response."""

    def grade(self, prompt: str, completion: str) -> Grade:
        """The truth about a response."""

    def answer(self, completion: str) -> int | None:
        """The final answer of a response, for votes; None where it has none."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The task's own tokenizer."""


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
    judged = tuple(bool(right) and index < expected for index, right in enumerate(steps))
    first = judged.index(False) if False in judged else -1
    if first == -1 and len(judged) < expected:
        first = len(judged)
    return Grade(correct, judged, first)
