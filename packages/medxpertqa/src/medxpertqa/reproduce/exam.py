"""Which questions are asked: real ones, read in memory, or the package's synthetic ones for tests."""

from __future__ import annotations

from medxpertqa.datasets import archived_questions
from medxpertqa.hub import load_questions
from medxpertqa.questions import Question


def exam_questions(subset: str, count: int, *, made_up: bool = False) -> list[Question]:
    """`count` questions of the o1 sample of "text" or "mm", evenly spread over it; all if there are fewer."""
    if made_up:
        questions = load_questions("synthetic/text" if subset == "text" else "synthetic/mm")
    else:
        questions = archived_questions("text/o1" if subset == "text" else "mm/o1")
    n = len(questions)
    return questions if count >= n else [questions[place * n // count] for place in range(count)]
