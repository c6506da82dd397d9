"""What may be published of the test set, question by question: no text and no answer."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medxpertqa.errors import DataError, MissingExtraError
from medxpertqa.questions import Question

Attributes = dict[str, str | int]
FIELDS = ("subset", "question_type", "medical_task", "body_system", "n_options", "n_images", "o1_sample")
_NUMBERS = ("n_options", "n_images", "o1_sample")


@dataclass(frozen=True)
class DatasetStatistics:
    """Counts by subset ("Text", "MM"), then by value; `n_images` counts questions by images."""

    n: Mapping[str, int]
    question_type: Mapping[str, Mapping[str, int]]
    medical_task: Mapping[str, Mapping[str, int]]
    body_system: Mapping[str, Mapping[str, int]]
    n_images: Mapping[str, Mapping[int, int]]

    @property
    def total_images(self) -> int:
        """How many images all questions have together."""
        return sum(images * count for counts in self.n_images.values() for images, count in counts.items())

    def pooled_percent(self, field: str) -> dict[str, float]:
        """The share of each value of a field among the questions of all subsets, in %, largest first."""
        if field not in ("question_type", "medical_task", "body_system"):
            raise DataError(f"there are no shares of {field!r}; of: question_type, medical_task, body_system")
        pooled: Counter[str] = Counter()
        for counts in getattr(self, field).values():
            pooled.update(counts)
        total = sum(pooled.values())
        return {value: 100 * count / total for value, count in pooled.most_common()}


def load_attributes(path: str | os.PathLike[str] | None = None) -> dict[str, Attributes]:
    """The attributes of all 4,450 test questions by id, from a CSV with the columns id and `FIELDS`.

    Without `path` from the named data set `medxpertqa-attributes`. Raises `DataError` for a file of another
    form, `MissingExtraError` if no path is given and tenfold is not installed.
    """
    if path is None:
        try:
            from medxpertqa.datasets import ATTRIBUTES
        except ImportError as error:
            raise MissingExtraError(
                "the attributes by name (or give the path of attributes.csv) need an optional extra: "
                "pip install 'medxpertqa[reproduce]'"
            ) from error
        path = ATTRIBUTES.get() / "attributes.csv"
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or set(rows[0]) != {"id", *FIELDS}:
        raise DataError(f"{path} is no file of attributes; its columns should be id, {', '.join(FIELDS)}")
    try:
        return {
            row["id"]: {key: int(row[key]) if key in _NUMBERS else row[key] for key in FIELDS} for row in rows
        }
    except ValueError as error:
        raise DataError(f"{path}: {', '.join(_NUMBERS)} must be whole numbers: {error}") from error


def dataset_statistics(
    questions: Iterable[Question] | Mapping[str, Attributes],
) -> DatasetStatistics:
    """Count questions, or the attributes of `load_attributes`."""
    rows = (
        list(questions.values())
        if isinstance(questions, Mapping)
        else [question.attributes for question in questions]
    )
    subsets = list(dict.fromkeys(str(row["subset"]) for row in rows))

    def by_value(field: str) -> dict[str, dict[str, int]]:
        return {s: dict(Counter(str(row[field]) for row in rows if row["subset"] == s)) for s in subsets}

    return DatasetStatistics(
        n={subset: sum(row["subset"] == subset for row in rows) for subset in subsets},
        question_type=by_value("question_type"),
        medical_task=by_value("medical_task"),
        body_system=by_value("body_system"),
        n_images={
            s: dict(Counter(int(row["n_images"]) for row in rows if row["subset"] == s)) for s in subsets
        },
    )
