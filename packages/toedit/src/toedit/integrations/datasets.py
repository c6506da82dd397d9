"""Data sets of the `datasets` library in every layout; `Editor.map` is the same for a column of text."""

from __future__ import annotations

from typing import Any

from toedit.editor import BUFFER, Editor
from toedit.errors import MissingExtraError, ToEditError
from toedit.integrations.columns import edit_columns
from toedit.layouts import Layout
from toedit.mapping import edited_features

try:
    from datasets import Dataset, IterableDataset
    from datasets.fingerprint import generate_random_fingerprint
except ImportError as error:
    raise MissingExtraError("this integration needs datasets: pip install 'toedit[datasets]'") from error


def edit_dataset(
    editor: Editor,
    dataset: Any,
    layout: Layout,
    id_column: str | None = "id",
    *,
    provenance: bool = False,
    batch_size: int = BUFFER,
) -> Any:
    """A `Dataset` or `IterableDataset` with what the layout names edited; all columns are kept.

    Raises `ToEditError` for another type, for columns that are not there, for an id that a `Dataset` has
    twice, and for a row that cannot be edited.
    """
    if not isinstance(dataset, Dataset | IterableDataset):
        raise ToEditError(
            f"edit_dataset takes a Dataset or an IterableDataset, not {type(dataset).__name__}; of a "
            "dictionary of splits, edit each"
        )

    def edit(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return edit_columns(editor, batch, layout, id_column, provenance)

    options: dict[str, Any] = {"batched": True, "batch_size": batch_size}
    options["features"] = edited_features(dataset, provenance)
    if isinstance(dataset, IterableDataset):
        return dataset.map(edit, **options)
    if id_column in dataset.column_names and len(set(dataset[id_column])) < len(dataset):
        raise ToEditError(f"the column {id_column!r} has an id twice; the draws are keyed by the id")
    # A fingerprint by content would pickle the whole model.
    fingerprint = generate_random_fingerprint()
    return dataset.map(edit, new_fingerprint=fingerprint, desc="toedit", **options)
