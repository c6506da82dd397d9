"""A multiple-choice question, and the two forms in which MedXpertQA writes one as a record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import Any, Literal

from medxpertqa.errors import DataError

CHOICES = "\nAnswer Choices:"
"""What separates the stem from the options in the question string of a record."""

N_OPTIONS = {"Text": 10, "MM": 5}
"""How many options a question of a subset has."""

MEDICAL_TASKS = ("Diagnosis", "Treatment", "Basic Science")
QUESTION_TYPES = ("Reasoning", "Understanding")
BODY_SYSTEMS = (
    "Skeletal",
    "Cardiovascular",
    "Nervous",
    "Digestive",
    "Respiratory",
    "Reproductive",
    "Integumentary",
    "Endocrine",
    "Muscular",
    "Urinary",
    "Lymphatic",
    "Other / NA",
)
_KINDS: dict[str, type | tuple[type, ...]] = {
    "id": (str, int),
    "images": (list, tuple),
    **dict.fromkeys(("question", "medical_task", "subtask", "body_system", "question_type"), str),
    "label_rationale": str,
}
"""What the fields of a record are in JSON; `options` and `label` have several forms, each read by itself."""

_SAME_TASK = {"Basic Medicine": "Basic Science"}  # the paper's and the dev split's name for it


@dataclass(frozen=True)
class Question:
    """One question: what stands before the options, the options by letter, and the letter of the right one.

    `options` maps A, B, ... (consecutive, at least two) to texts; `images` are file names in the order in
    which they are shown; an attribute that a bank does not give is "". `explanation` is an expert's, where
    the bank has one; `subtask`, in a few words, is of the construction's labels.

    Raises `DataError`, naming the question and the field.
    """

    id: str
    stem: str
    options: Mapping[str, str] = field(hash=False)
    label: str
    images: tuple[str, ...] = ()
    medical_task: str = ""
    body_system: str = ""
    question_type: str = ""
    explanation: str = field(default="", repr=False)
    subtask: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", dict(self.options))
        object.__setattr__(self, "images", tuple(self.images))
        task = _SAME_TASK.get(self.medical_task, self.medical_task)
        object.__setattr__(self, "medical_task", task)
        expected = ascii_uppercase[: len(self.options)]
        if not 2 <= len(self.options) <= 26 or "".join(self.options) != expected:
            raise self._error("options", f"letters are {', '.join(self.options)}; needed: A, B, ... in order")
        if self.label not in self.options:
            raise self._error(
                "label", f"is {self.label!r}, which is none of the options {', '.join(expected)}"
            )

    @property
    def n_options(self) -> int:
        """How many options there are, 2 to 26."""
        return len(self.options)

    @property
    def letters(self) -> str:
        """All letters as one string, for example "ABCDE"."""
        return "".join(self.options)

    @property
    def answer(self) -> str:
        """The text of the right option."""
        return self.options[self.label]

    @property
    def subset(self) -> Literal["Text", "MM"]:
        """ "MM" for a question with images or an id of that subset, else "Text"."""
        return "MM" if self.images or self.id.startswith("MM-") else "Text"

    @property
    def attributes(self) -> dict[str, str | int]:
        """What may be published of a question beside its id: no text of it."""
        return {
            "subset": self.subset,
            "question_type": self.question_type,
            "medical_task": self.medical_task,
            "body_system": self.body_system,
            "n_images": len(self.images),
        }

    def to_prompt_string(self) -> str:
        """The question string of the records: stem, then "Answer Choices: (A) ... (B) ..." on a new line."""
        return self.stem + _choices(self.options)

    def permuted(self, order: Sequence[int]) -> Question:
        """The same question with option i now the former option `order[i]`; the label follows its text.

        Raises `DataError` unless `order` is a permutation of 0 .. n_options - 1.
        """
        if sorted(order) != list(range(self.n_options)):
            raise self._error("options", f"cannot be ordered by {list(order)}; it is no permutation of them")
        letters, texts = self.letters, list(self.options.values())
        options = {letter: texts[old] for letter, old in zip(letters, order, strict=True)}
        return replace(self, options=options, label=letters[list(order).index(letters.index(self.label))])

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Question:
        """Read a record of the hub, of the official `eval/` folder, or of a bank in the latter's form.

        The hub writes `options` as {letter: text} and `label` as a letter, the official form as a list of
        {"letter", "content"} and a list of one letter; where `options` is missing (MedQA as the official
        repository keeps it) they are read from the question string. Raises `DataError`.
        """
        name = "a question without id" if record.get("id") in (None, "") else str(record["id"])
        for key in ("id", "question", "label"):
            if record.get(key) in (None, "", [], {}):
                raise DataError(f"{name}: {key} is missing or empty")
        for key, kind in _KINDS.items():
            if record.get(key) and not isinstance(record[key], kind):
                raise DataError(f"{name}: {key} is a {type(record[key]).__name__}, which it cannot be")
        question = record["question"]
        options = _options(record.get("options"), name)
        stem = _stem(question, options, name) if options else ""
        if not options:
            stem, options = _split(question, name)
        return cls(
            id=name,
            stem=stem,
            options=options,
            label=_label(record["label"], name),
            images=tuple(_image(image, name) for image in record.get("images") or ()),
            medical_task=record.get("medical_task") or "",
            body_system=record.get("body_system") or "",
            question_type=record.get("question_type") or "",
            explanation=record.get("label_rationale") or "",
            subtask=record.get("subtask") or "",
        )

    def to_record(self, form: Literal["hub", "official"] = "hub") -> dict[str, Any]:
        """The record of which `from_record` makes this question again."""
        hub = form == "hub"
        options: Any = dict(self.options)
        if not hub:
            options = [{"letter": letter, "content": text} for letter, text in self.options.items()]
        record: dict[str, Any] = {
            "id": self.id,
            "question": self.to_prompt_string(),
            "options": options,
            "label": self.label if hub else [self.label],
        }
        if self.subset == "MM":
            record["images"] = [name if hub else {"image_path": name} for name in self.images]
        for key in ("medical_task", "body_system", "question_type"):
            record[key] = getattr(self, key)
        if self.explanation:
            record["label_rationale"] = self.explanation
        if self.subtask:
            record["subtask"] = self.subtask
        return record

    def _error(self, what: str, problem: str) -> DataError:
        return DataError(f"{self.id}: {what} {problem}")


def check_questions(questions: Iterable[Question], source: str) -> list[Question]:
    """Return them as a list, or raise `DataError` if there are none or two have one id."""
    found = list(questions)
    if not found:
        raise DataError(f"{source} has no questions")
    twice = [name for name, count in Counter(question.id for question in found).items() if count > 1]
    if twice:
        raise DataError(f"{source}: {len(twice)} ids come more than once, for example {twice[0]}")
    return found


def _choices(options: Mapping[str, str]) -> str:
    return f"{CHOICES} " + " ".join(f"({letter}) {text}" for letter, text in options.items())


def _options(value: Any, name: str) -> dict[str, str]:
    if not value:
        return {}
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        try:
            pairs = [(str(option["letter"]), option["content"]) for option in value]
        except (TypeError, KeyError):
            raise DataError(
                f"{name}: options are neither {{letter: text}} nor a list of {{letter, content}}"
            ) from None
    # A table read by columns (parquet) has every letter of the set, the missing ones with no text.
    options = {letter: text for letter, text in pairs if text is not None}
    wrong = [letter for letter, text in options.items() if not isinstance(text, str)]
    if wrong:
        raise DataError(f"{name}: option {wrong[0]} is no text")
    if len(pairs) != len(dict(pairs)):
        raise DataError(f"{name}: a letter comes twice among the options")
    return options


def _stem(question: str, options: Mapping[str, str], name: str) -> str:
    choices = _choices(options)
    if question.endswith(choices):
        return question[: -len(choices)]
    if CHOICES in question:
        raise DataError(f"{name}: the options in the question string differ from the field options")
    return question


def _split(question: str, name: str) -> tuple[str, dict[str, str]]:
    """Read the options out of the question string: each letter's first place after the one before it."""
    stem, found, choices = question.rpartition(f"{CHOICES} ")
    marks: list[re.Match[str]] = []
    for letter in ascii_uppercase:
        start = marks[-1].end() if marks else 0
        mark = re.compile(rf"(?:^|\s)\({letter}\)(?:\s|$)").search(choices, max(start - 1, 0))
        if mark is None:
            break
        marks.append(mark)
    if not found or len(marks) < 2:
        raise DataError(f"{name}: there is no field options, nor 'Answer Choices: (A) ...' in the question")
    ends = [mark.start() for mark in marks[1:]] + [len(choices)]
    texts = [choices[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    return stem, dict(zip(ascii_uppercase, texts, strict=False))


def _label(value: Any, name: str) -> str:
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise DataError(f"{name}: label is {list(value)}; needed: one letter")
        value = value[0]
    return str(value)


def _image(value: Any, name: str) -> str:
    file = value.get("image_path") if isinstance(value, Mapping) else value
    if not isinstance(file, str) or not file:
        raise DataError(f"{name}: images has {value!r}, which names no file")
    return file
