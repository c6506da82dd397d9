"""The paper's numbers about the questions themselves (Tables 2 and 3, Figures 2 and 3), counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medxpertqa.attributes import dataset_statistics
from medxpertqa.errors import MissingExtraError
from medxpertqa.questions import Question

_PRINTED: dict[str, dict[str, float]] = {
    "Text": {"questions": 2450, "Reasoning": 1861, "Understanding": 589, "average length": 257.37},
    "MM": {
        "questions": 2000,
        "Reasoning": 1446,
        "Understanding": 554,
        "images": 2852,
        "average length": 149.35,
    },
}


@dataclass(frozen=True)
class CountedNumber:
    """One number of the paper and what the questions give; equal to the last printed decimal, or not."""

    subset: str
    name: str
    printed: float
    counted: float

    @property
    def equal(self) -> bool:
        """Whether they are the same number."""
        return round(self.counted, 2) == self.printed


def check_questions_of(questions: Sequence[Question]) -> list[CountedNumber]:
    """Count a whole subset; lengths are the mean number of o200k_base tokens with the options.

    Raises `MissingExtraError` without bpe-openai.
    """
    found = dataset_statistics(questions)
    numbers = []
    for subset in found.n:
        chosen = [question for question in questions if question.subset == subset]
        counted: dict[str, float] = {
            "questions": len(chosen),
            **found.question_type[subset],
            "images": sum(len(question.images) for question in chosen),
            "average length": average_tokens(chosen),
        }
        for name, printed in _PRINTED[subset].items():
            numbers.append(CountedNumber(subset, name, printed, counted.get(name, 0)))
    return numbers


def average_tokens(questions: Sequence[Question]) -> float:
    """The mean number of o200k_base tokens of the question strings with their options."""
    try:
        import bpe_openai
    except ImportError:
        raise MissingExtraError(
            "counting tokens needs an optional extra: pip install 'medxpertqa[reproduce]'"
        ) from None
    encoding = bpe_openai.get_encoding("o200k_base")
    counts = [len(encoding.encode_ordinary(question.to_prompt_string())) for question in questions]
    return sum(counts) / len(counts)
