"""Training data of TRL and LLaMA-Factory: the answers are edited, the prompts are not."""

from __future__ import annotations

from typing import Any

from toedit.editor import Editor
from toedit.errors import ToEditError
from toedit.integrations.datasets import edit_dataset
from toedit.layouts import AlpacaLayout, Layout, MessagesLayout, PromptCompletionLayout

_LAYOUTS: tuple[Layout, ...] = (MessagesLayout(), PromptCompletionLayout(), AlpacaLayout())


def edit_answers(
    editor: Editor, dataset: Any, id_column: str | None = None, *, provenance: bool = False
) -> Any:
    """A `Dataset` or `IterableDataset` with its answers edited, in the layout that its columns show.

    `messages` (TRL, LLaMA-Factory's OpenAI format), `prompt` and `completion` (TRL, texts or messages), or
    `instruction`, `input` and `output` (alpaca). Such data seldom has ids: by default they are hashes of the
    content, so equal rows are edited alike.

    Raises `ToEditError` for other columns, and as `edit_dataset` does.
    """
    columns = dataset.column_names
    if columns is None:  # of a stream that does not know them before it is read
        columns = list(next(iter(dataset), {}))
    return edit_dataset(editor, dataset, layout_of(columns), id_column, provenance=provenance)


def layout_of(columns: list[str]) -> Layout:
    """The layout that has these columns. Raises `ToEditError` if none has, naming them."""
    for layout in _LAYOUTS:
        if set(layout.columns) <= set(columns):
            return layout
    known = "; ".join(", ".join(layout.columns) for layout in _LAYOUTS)
    found = ", ".join(columns) or "of an empty data set"
    raise ToEditError(f"the columns {found} are no training data; known are: {known}")
