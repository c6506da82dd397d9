"""`Editor.map`: the text column of a dataset of the `datasets` library, edited."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from toedit.documents import Document, check_unique, or_raise
from toedit.errors import MissingExtraError, ToEditError
from toedit.provenance import EDIT_FIELDS, PROVENANCE, provenance_columns

if TYPE_CHECKING:
    from toedit.editor import Editor


def map_dataset(
    editor: Editor, dataset: Any, text_column: str, id_column: str | None, provenance: bool, batch_size: int
) -> Any:
    """See `Editor.map`."""
    try:
        from datasets import Dataset, IterableDataset
        from datasets.fingerprint import generate_random_fingerprint
    except ImportError as error:
        raise MissingExtraError(
            "Editor.map needs the library datasets: pip install 'toedit[datasets]'"
        ) from error
    if not isinstance(dataset, Dataset | IterableDataset):
        raise ToEditError(
            f"map takes a Dataset or an IterableDataset, not {type(dataset).__name__}; of a dictionary of "
            "splits, map each"
        )
    columns = dataset.column_names
    if columns is not None:
        for column in (text_column, id_column):
            if column is not None and column not in columns:
                raise ToEditError(f"there is no column {column!r}; there are: {', '.join(columns)}")
    edit = _batch_editor(editor, text_column, id_column, provenance)
    options: dict[str, Any] = {"batched": True, "batch_size": batch_size, "with_indices": True}
    options["features"] = edited_features(dataset, provenance)
    if isinstance(dataset, IterableDataset):
        return dataset.map(edit, **options)
    # A fingerprint by content would pickle the whole model.
    return dataset.map(edit, new_fingerprint=generate_random_fingerprint(), desc="toedit", **options)


def text_id(text: str) -> str:
    """The id of a text without one: a hash of its content, so that equal texts get equal edits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def text_ids(texts: Iterable[Any], rows: Iterable[int]) -> list[str]:
    """The `text_id` of each text. Raises `ToEditError` for what is no text, with its number of the `rows`."""
    found = []
    for row, text in zip(rows, texts, strict=True):
        if not isinstance(text, str):
            raise ToEditError(
                f"the text of row {row} (the first is 0) is of type {type(text).__name__}, not a string"
            )
        found.append(text_id(text))
    return found


def edited_features(dataset: Any, provenance: bool) -> Any:
    """The features of the edited data set, or None where those of `dataset` are not known.

    Said beforehand, since a first batch without edits would leave the type of the edits open.
    """
    if dataset.features is None or not provenance:
        return dataset.features
    from datasets import List, Value

    edit = {name: Value(kind) for name, kind in EDIT_FIELDS.items()}
    features = dataset.features.copy()
    features.update(zip(PROVENANCE, (Value("int64"), Value("int64"), List(edit)), strict=True))
    return features


def _batch_editor(
    editor: Editor, text_column: str, id_column: str | None, provenance: bool
) -> Callable[[dict[str, list[Any]], list[int]], dict[str, list[Any]]]:
    seen: set[str] = set()

    def edit(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        texts = _column(batch, text_column)
        if id_column is None:
            ids: Sequence[int | str] = text_ids(texts, indices)
        else:
            ids = _column(batch, id_column)
            if indices[0] == 0:  # a stream is read from its beginning again
                seen.clear()
            check_unique(ids, seen)
        documents = [Document(doc_id, text) for doc_id, text in zip(ids, texts, strict=True)]
        results = [or_raise(outcome) for outcome in editor.edit_stream(documents, len(documents))]
        new: dict[str, list[Any]] = {text_column: [result.text for result in results]}
        if provenance:
            rows = [provenance_columns(result) for result in results]
            new |= {name: [row[name] for row in rows] for name in PROVENANCE}
        return new

    return edit


def _column(batch: dict[str, list[Any]], name: str) -> list[Any]:
    if name not in batch:
        raise ToEditError(f"there is no column {name!r}; there are: {', '.join(batch)}")
    return batch[name]
