"""Twenty invented questions, with invented images, for trying things out and for tests.

They look like MedXpertQA's by form alone: the organs, diseases and drugs do not exist. Nothing of the test
set, rephrased or not, is in them.
"""

from __future__ import annotations

import base64
import random
import struct
import zlib
from string import ascii_uppercase

from medxpertqa.errors import DataError
from medxpertqa.questions import BODY_SYSTEMS, MEDICAL_TASKS, QUESTION_TYPES, Question

_ORGANS = ["zorblax gland", "left quibble", "upper fandango", "glimmer duct", "second tail", "wobble joint"]
_SIGNS = ["turns pale green", "hums at night", "smells of cinnamon", "floats", "glows", "sheds square scales"]
_FINDS = ["moon dust", "paper clips", "blue sand", "tiny bells", "warm snow", "loose commas"]
_ASKS = {
    "Diagnosis": "Which invented disease is this",
    "Treatment": "What should the imaginary physician give",
    "Basic Science": "Which made-up principle explains it",
}
_PREFIXES = ["Snar", "Plim", "Wug", "Dorf", "Kels", "Brim", "Quon", "Tash", "Vool", "Yips"]
_SUFFIXES = {"Diagnosis": "osis", "Treatment": "amine", "Basic Science": "'s law"}
_IMAGES = (1, 1, 2, 1, 3, 1, 6, 1)
_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACgcHiMeGSgjISMtKygwPGRBPDc3PHtYXUlkkYCZlo+AjIqgtObDoKrarYqMyP/L"
    "2u71////m8H////6/+b9//j/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABP/EABgQAAIDAAAAAAAAAAAAAAAA"
    "AAARASEx/9oACAEBAAA/AHW9hH//2Q=="
)


def synthetic_questions(subset: str) -> list[Question]:
    """The 12 questions "text" (10 options) or the 8 "mm" (5 options, 1 to 6 images), always the same.

    Raises `DataError` for another subset.
    """
    if subset not in ("text", "mm"):
        raise DataError(f"there are no synthetic questions of the subset {subset!r}; there are: text, mm")
    return [_question(subset, number) for number in range(12 if subset == "text" else 8)]


def synthetic_images() -> dict[str, bytes]:
    """The images of the questions "mm" by file name: small PNGs and JPEGs, one PNG under a name in .jpeg."""
    names = [name for question in synthetic_questions("mm") for name in question.images]
    return {
        name: _png(place) if name.endswith(".png") or name == "MM-2-b.jpeg" else _JPEG
        for place, name in enumerate(names)
    }


def _question(subset: str, number: int) -> Question:
    chance = random.Random(f"{subset}-{number}")  # a string seeds alike everywhere
    task = MEDICAL_TASKS[number % 3]
    age, organ, sign, find = chance.randint(200, 900), *(chance.choice(x) for x in (_ORGANS, _SIGNS, _FINDS))
    stem = (
        f"A {age}-year-old visitor from a story has a {organ} that {sign}. The drawing room finds {find}. "
        f"{_ASKS[task]}?"
    )
    n_options = 10 if subset == "text" else 5
    names = chance.sample(_PREFIXES, n_options)
    letters = ascii_uppercase[:n_options]
    n_images = 0 if subset == "text" else _IMAGES[number]
    ends = ["png" if number == 5 else "jpeg"] * n_images
    return Question(
        id=f"{'Text' if subset == 'text' else 'MM'}-{number}",
        stem=stem,
        options={letter: name + _SUFFIXES[task] for letter, name in zip(letters, names, strict=True)},
        label=chance.choice(letters),
        images=tuple(f"MM-{number}-{letter}.{end}" for letter, end in zip("abcdef", ends, strict=False)),
        medical_task=task,
        body_system=BODY_SYSTEMS[number % len(BODY_SYSTEMS)],
        question_type=QUESTION_TYPES[number % 4 == 3],
    )


def _png(shade: int) -> bytes:
    """A grey square of 8 x 8 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = (b"\0" + bytes([16 * shade % 256]) * 8) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, content)
        for kind, content in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )
