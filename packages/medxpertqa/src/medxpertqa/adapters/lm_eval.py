"""Tasks for lm-eval: `lm_eval --include_path "$(medxpertqa lm-eval-path)" --tasks medxpertqa_text_cot`.

lm-eval asks once, so the two turns of the official protocol are not to be had there, and it sends every image
as image/png in front of the text: its numbers do not compare with the paper's.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medxpertqa.errors import MissingExtraError
from medxpertqa.hub import load_questions
from medxpertqa.parsing import parse_answer
from medxpertqa.protocols import get_protocol
from medxpertqa.questions import Question

Document = Mapping[str, Any]


def task_folder() -> Path:
    """The folder of the task files, for --include_path."""
    return Path(__file__).parent / "lm_eval_tasks"


def documents(subset: str = "text", data: str | None = None, **_: Any) -> dict[str, Any]:
    """The questions as the split "test" of a data set: id, question (with options), label, options, images.

    lm-eval hands over everything in `--metadata`; what is not `data` (a file of questions) is not ours.
    """
    try:
        from datasets import Dataset
    except ModuleNotFoundError:
        raise MissingExtraError(
            "the tasks for lm-eval need an optional extra: pip install 'medxpertqa[lm-eval]'"
        ) from None
    rows = [
        {
            "id": question.id,
            "stem": question.stem,
            "options": list(question.options.values()),
            "label": question.label,
            "images": list(question.images),
            **question.attributes,
        }
        for question in load_questions(subset, path=data)
    ]
    return {"test": Dataset.from_list(rows)}


def reasoning_prompt(doc: Document) -> str:
    """The text of the first turn of official-cot."""
    return _prompt(doc, "official-cot")


def answer_only_prompt(doc: Document) -> str:
    """The text of official-ao, which ends where the letter belongs."""
    return _prompt(doc, "official-ao")


def letters(doc: Document) -> list[str]:
    """The letters of the options."""
    return list(_question(doc).letters)


def label_place(doc: Document) -> int:
    """The place of the right letter among `letters`."""
    return letters(doc).index(doc["label"])


def images(doc: Document) -> list[Any]:
    """The images as PIL images, in order, from the hub's archive."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise MissingExtraError(
            "the images need an optional extra: pip install 'medxpertqa[images]'"
        ) from None
    from medxpertqa.images import ImageStore

    store = ImageStore.from_hub()
    return [Image.open(io.BytesIO(store.read(name))) for name in doc["images"]]


def process_results(doc: Document, results: Sequence[str]) -> dict[str, float]:
    """1 or 0 for a right letter by the robust (`acc`) and by the official parser, and for any letter."""
    found = read_letters(results[0], _question(doc).options)
    return {
        "acc": float(found["robust"] == doc["label"]),
        "acc_official": float(found["official"] == doc["label"]),
        "answered": float(found["robust"] is not None),
    }


def read_letters(reply: str, options: Mapping[str, str]) -> dict[str, str | None]:
    """The letters that both parsers read out of a reply."""
    return {
        "official": parse_answer(reply, len(options), "official").letter,
        "robust": parse_answer(reply, len(options), "robust", options=options).letter,
    }


def _question(doc: Document) -> Question:
    options = {chr(ord("A") + place): text for place, text in enumerate(doc["options"])}
    return Question(doc["id"], doc["stem"], options, doc["label"], tuple(doc["images"]))


def _prompt(doc: Document, protocol: str) -> str:
    content = get_protocol(protocol).first_turn(_question(doc))[-1]["content"]
    text: str = content[0]["text"]
    return text
