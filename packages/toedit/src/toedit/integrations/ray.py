"""Ray Data: an actor class for `map_batches`, one prior an actor.

    ds.map_batches(
        toedit.integrations.ray.EditBatch,
        fn_constructor_kwargs={"model": "meta-llama/Meta-Llama-3-8B", "backend": "vllm"},
        concurrency=4, num_gpus=1, batch_size=1024,
    )

It needs nothing of Ray itself. `ray.data.llm`'s processor is not used: it is made for generated text, and
would carry every token's probabilities through the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toedit.config import EditConfig
from toedit.editor import DEFAULT_PRIOR, Editor
from toedit.integrations.columns import edit_columns
from toedit.layouts import layout_named


class EditBatch:
    """Edits batches (dictionaries of columns) in an actor, which loads the prior once.

    `options` go to `Editor.from_pretrained`, `layout` and `text_column` to `toedit.layouts.layout_named`;
    `id_column` None makes ids of the content. The result does not depend on batches, actors or their order.
    That no two rows of the data set have the same id is not seen here.

    Raises `ToEditError` for columns that are not there and for a row that cannot be edited.
    """

    def __init__(
        self,
        model: str = DEFAULT_PRIOR,
        config: EditConfig | None = None,
        backend: str = "transformers",
        *,
        layout: str = "text",
        text_column: str | None = None,
        id_column: str | None = "id",
        provenance: bool = False,
        **options: Any,
    ) -> None:
        self.editor = Editor.from_pretrained(model, config, backend, **options)
        self.layout = layout_named(layout, text_column)
        self.id_column, self.provenance = id_column, provenance

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """The batch with its edited columns, and those of the provenance."""
        new = edit_columns(self.editor, batch, self.layout, self.id_column, self.provenance)
        return {**batch, **{name: _object_array(values) for name, values in new.items()}}


def _object_array(values: list[Any]) -> np.ndarray:
    """A column; numpy would make lists of one length into a matrix."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
