"""What is asked of a question: as published, with its options turned, or with a part of it taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from medxpertqa.errors import MedXpertQAError
from medxpertqa.questions import Question
from medxpertqa.results import Record

Ablation = Literal["images", "stem"]

NOT_ASKED = "not asked: "
"""How the error in a log begins of a question that a stopped run kept back: it has no record."""


@dataclass(frozen=True)
class Asked:
    """A question as it goes to the model: `question` is that form, `published` the original.

    `order` gives the published place of each option (empty if as published), so `question.label` is the right
    letter of what was asked.
    """

    published: Question
    question: Question = field(repr=False)
    order: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """The id, with the turn of the options behind an @ if they were turned: unique in a run."""
        return f"{self.published.id}@{self.order[0]}" if self.order else self.published.id

    def record(self, response: str, **rest: Any) -> Record:
        """The record of a reply to it."""
        made = Record.of(self.published, response, order=self.order, **rest)
        return replace(made, options=self.question.options)


def asked_questions(
    questions: Iterable[Question], permute: int = 1, ablate: Sequence[Ablation] = ()
) -> list[Asked]:
    """Each question in `permute` cyclic orders of its options (the first as published, the others spread).

    `ablate` takes away the images, the stem or both: what a model still gets right without them it knows
    from elsewhere. Raises `MedXpertQAError` for an unknown ablation and for more turns than options.
    """
    unknown = [part for part in ablate if part not in get_args(Ablation)]
    if unknown:
        raise MedXpertQAError(f"--ablate {unknown[0]}: it may be {' or '.join(get_args(Ablation))}")
    found = []
    for published in questions:
        n = published.n_options
        if not 1 <= permute <= n:
            raise MedXpertQAError(f"--permute {permute}: {published.id} has {n} options, so 1 to {n} turns")
        shown = published
        if "images" in ablate:
            shown = replace(shown, images=())
        if "stem" in ablate:
            shown = replace(shown, stem="")
        found.append(Asked(published, shown))
        for turn in range(1, permute):
            shift = turn * n // permute
            order = tuple((place + shift) % n for place in range(n))
            found.append(Asked(published, shown.permuted(order), order))
    return found


def shard_of(questions: Sequence[Question], which: str) -> list[Question]:
    """The i-th of n parts, `which` being "i/n" with i from 1: every n-th question, so parts are alike."""
    part, _, parts = which.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise MedXpertQAError(f"--shard {which}: write i/n, with i from 1 to n")
    found = list(questions[int(part) - 1 :: int(parts)])
    if not found:
        raise MedXpertQAError(f"--shard {which}: there are only {len(questions)} questions")
    return found
