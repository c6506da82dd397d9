"""A data set of the Hugging Face hub as a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmlab.cache import fingerprint
from lmlab.splitting import SPLITS, CorpusError, Manifest, place

if TYPE_CHECKING:
    from datasets import Dataset

_NAMES = {"train": ("train",), "valid": ("validation", "valid", "dev"), "heldout": ("test",)}
_VALID_SHARE = 0.02
_MAX_VALID_TEXTS = 10_000


class HubCorpus:
    """`hf:<id>[:<config>][@<documents>]`: its train, validation (or valid, dev) and test splits as train,
    valid, heldout.

    Where there is no validation split, a hash of each text chooses 2% of the different training texts (at
    most 10,000) for one, so that repeated texts are never in both; splits that the data set has are taken as
    they are. It needs a column `text`, and is fetched, and kept, by `datasets`: whole, or with
    `@<documents>` that many of each split, the first ones, streamed.
    Raises `CorpusError` for a number of documents that is none.
    """

    def __init__(self, name: str, offline_names: tuple[str, ...]) -> None:
        self.name = name
        self.description = "a data set of the Hugging Face hub"
        source, at, documents = name.removeprefix("hf:").partition("@")
        if at and not (documents.isdecimal() and int(documents) > 0):
            raise CorpusError(f"{name}: after @ comes how many documents to take, not {documents!r}")
        self._documents = int(documents) if at else None
        self._id, _, self._config = source.partition(":")
        self._offline_names = offline_names

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of train, valid and heldout that the data set has."""
        return tuple(split for split in SPLITS if split in self._datasets)

    def key(self) -> str:
        """Changes with the data set's content, as far as `datasets` knows."""
        return fingerprint({split: self._datasets[split]._fingerprint for split in self.splits})

    def open(self, split: str) -> Dataset:
        """One split with the columns of a corpus."""
        found = self._datasets[split].select_columns(["text"])
        numbers = pc.cast(pa.array(range(len(found))), pa.string())
        names = pc.binary_join_element_wise(split, numbers, "/")
        sources = pa.array([self._id] * len(found), pa.string())
        return found.add_column("name", names).add_column("source", sources)

    def manifest(self) -> Manifest:
        """The data set's id, config and fingerprint, and how many documents were asked for."""
        return {
            "dataset": self._id,
            "config": self._config or None,
            "documents": self._documents,
            "fingerprint": self.key(),
        }

    @cached_property
    def _datasets(self) -> dict[str, Dataset]:
        there = self._load()
        found = {split: there[name] for split in SPLITS for name in reversed(_NAMES[split]) if name in there}
        if not found:
            raise CorpusError(
                f"{self.name} has the splits {', '.join(there)}; a corpus needs train, validation or test"
            )
        for data in found.values():
            if "text" not in data.column_names:
                raise CorpusError(
                    f"{self.name} has no column text; its columns are {', '.join(data.column_names)}"
                )
        if "train" in found and "valid" not in found:
            found |= self._split_by_text(found["train"])
        return found

    def _split_by_text(self, data: Dataset) -> dict[str, Dataset]:
        columns = data.column_names
        places = np.array(data.map(_places, batched=True, remove_columns=columns)["place"][:])
        different = np.unique(places)
        if len(different) < 2:
            raise CorpusError(
                f"{self.name} has {len(different)} different text, too few to split off a validation text"
            )
        count = max(1, min(round(_VALID_SHARE * len(different)), _MAX_VALID_TEXTS))
        is_valid = places < different[count]
        return {
            "train": data.select(np.flatnonzero(~is_valid)),
            "valid": data.select(np.flatnonzero(is_valid)),
        }

    def _load(self) -> dict[str, Dataset]:
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError

        config = self._config or None
        try:
            if self._documents is None:
                return dict(load_dataset(self._id, config))
            splits = load_dataset(self._id, config, streaming=True)
            return {split: _first(self._id, config, split, self._documents) for split in splits}
        except (
            DatasetNotFoundError,
            ValueError,
        ) as error:  # ValueError: no such config; it names those there are
            raise CorpusError(f"{self.name}: {error}") from error
        except OSError as error:
            raise CorpusError(
                f"{self.name} is not in the cache of Hugging Face data sets and the hub cannot be reached "
                f"({error}). These work without a network: {', '.join(self._offline_names)} and file:<path>"
            ) from error


def _places(rows: dict[str, list[str]]) -> dict[str, list[float]]:
    return {"place": [place(text) for text in rows["text"]]}


def _first(name: str, config: str | None, split: str, documents: int) -> Dataset:
    """The first documents of a split, streamed; `datasets` keeps them under these arguments."""
    from datasets import Dataset

    arguments = {"name": name, "config": config, "split": split, "documents": documents}
    return Dataset.from_generator(_stream, gen_kwargs=arguments)


def _stream(name: str, config: str | None, split: str, documents: int) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset

    yield from load_dataset(name, config, split=split, streaming=True).take(documents)
