"""The score of each question of a run, and accuracies with intervals over some of its questions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medxpertqa.errors import MedXpertQAError
from medxpertqa.results import Record, Results
from medxpertqa.stats import Interval, cluster_bootstrap, cluster_standard_error, wilson

FIELDS = ("subset", "question_type", "medical_task", "body_system")
SMALL = 30
"""A cell with fewer questions is marked: its interval says little."""

Errors = Literal["wrong", "exclude"]


@dataclass(frozen=True)
class Cell:
    """The accuracy over some of the questions; `n_correct` counts records, which are more with epochs.

    `ci` is Wilson's 95 % interval where every question has one record and is its own cluster, else the
    percentile interval of a cluster bootstrap; `standard_error` is the cluster-robust one.
    """

    n: int
    n_correct: int
    accuracy: float
    ci: Interval
    standard_error: float

    @property
    def small(self) -> bool:
        """Whether there are fewer than `SMALL` questions."""
        return self.n < SMALL


class Scores:
    """The mean of each question over its records, in the order of their ids; `seed` is the bootstrap's."""

    def __init__(self, records: Sequence[Record], rights: Sequence[bool], seed: int) -> None:
        self.seed = seed
        self.records: dict[str, Record] = {}
        self.rights: dict[str, list[bool]] = {}
        # Sorted by id, so that the order of the records cannot change what the bootstrap draws.
        for record, right in sorted(zip(records, rights, strict=True), key=lambda pair: pair[0].id):
            self.records.setdefault(record.id, record)
            self.rights.setdefault(record.id, []).append(right)
        self.values = {name: sum(found) / len(found) for name, found in self.rights.items()}

    def clusters(self, ids: Sequence[str]) -> list[Hashable]:
        """The cluster of each question: those that share an image have one."""
        return [self.records[name].attributes.get("cluster", name) for name in ids]

    def whole(self) -> Cell:
        """The cell of all questions."""
        return self.cell(list(self.values))

    def cell(self, ids: Sequence[str]) -> Cell:
        """The cell of these questions."""
        values, clusters = [self.values[name] for name in ids], self.clusters(ids)
        n_correct = sum(sum(self.rights[name]) for name in ids)
        single = all(len(self.rights[name]) == 1 for name in ids) and len(set(clusters)) == len(ids)
        if single:
            interval = wilson(n_correct, len(ids))
        else:
            interval = cluster_bootstrap(values, clusters, seed=self.seed)
        error = cluster_standard_error(values, clusters)
        return Cell(len(ids), n_correct, float(np.mean(values)), interval, error)

    def ids_by_field(self, ids: Sequence[str]) -> dict[str, dict[str, list[str]]]:
        """The questions by field and value; a field without a value leaves a question out."""
        found: dict[str, dict[str, list[str]]] = {}
        for key in FIELDS:
            for name in ids:
                value = self.records[name].attributes.get(key)
                if value:
                    found.setdefault(key, {}).setdefault(str(value), []).append(name)
        return found

    def by_field(self) -> dict[str, dict[str, Cell]]:
        """The cells by field and value."""
        return {
            key: {value: self.cell(ids) for value, ids in values.items()}
            for key, values in self.ids_by_field(list(self.values)).items()
        }


def places_that_count(results: Results, errors: Errors) -> list[int]:
    """The places of the records that count. Raises `MedXpertQAError` if none does."""
    kept = [
        place for place, record in enumerate(results.records) if errors == "wrong" or record.status == "ok"
    ]
    if not kept:
        raise MedXpertQAError("every reply is an error; nothing is left to sum up")
    return kept


def counted_scores(results: Results, errors: Errors, seed: int) -> Scores:
    """The scores by the parser that counts. Raises `MedXpertQAError` if every reply is an error."""
    kept, rights = places_that_count(results, errors), results.correct()
    return Scores([results.records[place] for place in kept], [rights[place] for place in kept], seed)
