"""datatrove: a step of a pipeline, for its local, Slurm and Ray executors with their completion markers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from toedit.config import EditConfig
from toedit.documents import Document, EditFailure
from toedit.editor import DEFAULT_PRIOR, Editor
from toedit.errors import MissingExtraError
from toedit.provenance import provenance_columns
from toedit.statistics import EditStats

try:
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise MissingExtraError("this integration needs datatrove: pip install 'toedit[datatrove]'") from error

_COUNTS = tuple(field.name for field in fields(EditStats) if field.name.startswith("n_"))


class TokenEditor(PipelineStep):
    """Edits the text of each document; its id keys the draws, so ranks and tasks do not matter.

    Each task loads the prior; `options` go to `Editor.from_pretrained`. `provenance` adds the columns of
    `toedit.provenance` to the metadata. The counts of `EditStats` are among the step's statistics. A
    document that cannot be edited is left out and goes to `exclusion_writer`, with the reason as the metadata
    `toedit_error`.
    """

    name = "Token editor"
    type = "EDIT"

    def __init__(
        self,
        model: str = DEFAULT_PRIOR,
        config: EditConfig | None = None,
        backend: str = "transformers",
        *,
        provenance: bool = False,
        exclusion_writer: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.model, self.config, self.backend, self.options = model, config, backend, options
        self.provenance, self.exclusion_writer = provenance, exclusion_writer

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """The documents of this rank, in order, edited."""
        editor = Editor.from_pretrained(self.model, self.config, self.backend, **self.options)
        waiting: deque[Any] = deque()

        def documents() -> Iterator[Document]:
            for document in data or ():
                waiting.append(document)
                yield Document(document.id, document.text)

        outcomes = editor.edit_stream(documents())
        if self.exclusion_writer is None:
            yield from self._edited(outcomes, waiting, None, rank)
        else:
            with self.exclusion_writer as writer:
                yield from self._edited(outcomes, waiting, writer, rank)

    def _edited(self, outcomes: Any, waiting: deque[Any], writer: Any, rank: int) -> Iterator[Any]:
        for outcome in outcomes:
            document = waiting.popleft()
            if isinstance(outcome, EditFailure):
                self.stat_update("n_failed")
                document.metadata["toedit_error"] = outcome.reason
                if writer is not None:
                    writer.write(document, rank)
                continue
            for name in _COUNTS:
                self.stat_update(name, value=getattr(outcome.stats, name))
            document.text = outcome.text
            if self.provenance:
                document.metadata |= provenance_columns(outcome)
            yield document
