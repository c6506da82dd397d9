"""A corpus that is read once and kept in the cache as Arrow files, one a split."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from lmlab.cache import built_once
from lmlab.splitting import Document, Manifest, Splits

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS_A_BATCH = 1000


@dataclass(frozen=True)
class StoredCorpus:
    """A named text: its splits, a hash of what its content depends on (`key`), and how it is read."""

    name: str
    description: str
    splits: tuple[str, ...]
    key: Callable[[], str]
    read: Callable[[], tuple[Splits, Manifest]]

    def open(self, split: str) -> Dataset:
        """One split, memory-mapped."""
        from datasets import Dataset

        return Dataset.from_file(str(self._folder() / f"{split}.arrow"))

    def manifest(self) -> Manifest:
        """Where the text came from and what was left out."""
        return json.loads((self._folder() / "manifest.json").read_text("utf-8"))

    def _folder(self) -> Path:
        def build(folder: Path) -> None:
            splits, manifest = self.read()
            for split in self.splits:
                _write(folder / f"{split}.arrow", splits[split])
            (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")

        return built_once("corpora", self.name, self.key(), build)


def _write(path: Path, rows: Sequence[Document]) -> None:
    schema = pa.schema([(column, pa.string()) for column in Document._fields])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for start in range(0, len(rows), _ROWS_A_BATCH):
            columns = zip(*rows[start : start + _ROWS_A_BATCH], strict=True)
            stream.write_batch(pa.record_batch([pa.array(c, pa.string()) for c in columns], schema=schema))
