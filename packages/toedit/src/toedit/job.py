"""`toedit edit`: a corpus of files in, the same files edited out, resumable at any moment.

    reader thread -> editor (this thread) -> writer thread

The folder of results:

    data/<input>-00000.<suffix>   shards of a fixed number of input rows, whole or not there
    documents.jsonl               a line a document: where it is, its tokens, candidates, changes, perplexity
    quarantine.jsonl              the rows that could not be read or edited, and why
    manifest.jsonl                settings, inputs, finished shards with their statistics
    journal.jsonl                 the outcomes of the shard that is being made; empty in the end
    report.html                   the statistics, for people

All but the journal are the same, byte for byte, however often the job was interrupted; the texts in any case,
the probabilities where the prior gives the same bits for the same batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from toedit import commits
from toedit.background import WritingBehind, reading_ahead
from toedit.commits import Commits, Item
from toedit.config import EditConfig
from toedit.documents import Document, EditFailure, EditResult
from toedit.errors import ToEditError
from toedit.files import BadRow, Row, find_sources, read_rows
from toedit.job_report import write_report
from toedit.layouts import Layout, Task, TextLayout, content_id
from toedit.manifest import Manifest, check_folder, differences, read_manifest
from toedit.outcomes import Outcome
from toedit.randomness import document_name
from toedit.secrecy import without_secrets
from toedit.statistics import EditStats
from toedit.survey import Surveyed, missing, survey

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from toedit.editor import Editor

SHARD_ROWS = 10_000

# Rows that wait between two threads.
_AHEAD = 1024

# After so many documents in a row that each fail alone, it is not the documents.
_GIVE_UP = 3


@dataclass(frozen=True)
class JobSettings:
    """All that the results depend on, but the inputs.

    `model`, `backend` and its `options` are kept in the manifest, without keys and tokens (`toedit.secrecy`),
    since a manifest goes out with its corpus; `id_column` None makes ids of the content.
    `provenance` adds the columns `toedit_candidates`, `toedit_changed` and `toedit_edits` (see
    `toedit.provenance`); `agree` names the second prior, where there is one.
    """

    config: EditConfig
    model: str
    backend: str = "transformers"
    options: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout = field(default_factory=TextLayout)
    id_column: str | None = "id"
    provenance: bool = False
    shard_rows: int = SHARD_ROWS
    agree: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "config": self.config.to_dict(),
            "model": self.model,
            "agree": self.agree,
            "backend": self.backend,
            "options": without_secrets(self.options),
            "layout": self.layout.name,
            "columns": list(self.layout.columns),
            "id_column": self.id_column,
            "provenance": self.provenance,
            "shard_rows": self.shard_rows,
        }


@dataclass(frozen=True)
class JobSummary:
    """What a job did. `n_tokens_now` were edited in `seconds` by this run, the rest by earlier ones."""

    stats: EditStats
    n_shards: int
    n_quarantined: int
    n_tokens_now: int
    seconds: float


class EditJob:
    """A corpus of files to be edited into a folder; made before the model is loaded, since it may refuse.

    `inputs` are files, folders, patterns and URLs, as `toedit.files.find_sources` takes them. With `resume` a
    job of the same settings goes on that was interrupted, and `complete` says that nothing of it is left to
    do; without it the results of an earlier job are removed when this one runs. The folder of results may be
    in a folder of inputs, and is none of them.

    Raises `ToEditError` for inputs without the columns, with an id twice, or in the folder of results, and
    for a folder of results with other contents; see `toedit.manifest.check_folder`.
    """

    def __init__(
        self, inputs: Sequence[str | Path], out: str | Path, settings: JobSettings, resume: bool = True
    ) -> None:
        if settings.shard_rows < 1:
            raise ToEditError(f"shard_rows is {settings.shard_rows}; it must be at least 1")
        self.settings = settings
        self.out = Path(out)
        sources = find_sources(inputs, self.out)
        self.files: list[Surveyed] = survey(sources, settings.layout, settings.id_column)
        self.resume = resume
        self.header = {
            "settings": settings.to_dict(),
            "inputs": {str(index): file.to_dict() for index, file in enumerate(self.files)},
        }
        self.complete = check_folder(self.out, self.header, resume).complete

    def run(self, editor: Editor, on_progress: Callable[[int, int], None] | None = None) -> JobSummary:
        """Edit what is left. `on_progress(rows that are done, rows)` is called now and then.

        Raises `ToEditError` if the editor cannot do it (another config than the settings', no chat template,
        a window that does not fit into memory), `OSError` for a full disk, `KeyboardInterrupt` after the
        documents that are edited were saved. In all cases the job can be resumed.
        """
        started, n_tokens = perf_counter(), 0
        if not self.complete:
            self._check(editor)
            manifest = Manifest(self.out, self.header, self.resume)
            try:
                n_tokens = self._run(editor, manifest, on_progress or (lambda done, total: None))
            finally:
                manifest.close()
        state = read_manifest(self.out)
        seconds = perf_counter() - started
        return JobSummary(state.stats, len(state.shards), state.n_quarantined, n_tokens, seconds)

    def _check(self, editor: Editor) -> None:
        """Raises `ToEditError` for an editor that does not do what the settings in the manifest say."""
        different = differences(self.settings.config.to_dict(), editor.config.to_dict())
        if different:
            raise ToEditError(
                "the editor's config is not that of the job's settings, which the manifest states; make the "
                "Editor with settings.config. Different are (there: the settings, now: the editor):\n"
                + "\n".join(f"  {line}" for line in different)
            )
        if (self.settings.agree is not None) != (editor.second is not None):
            raise ToEditError(
                "the settings' agree and the editor's second prior go together; give both, or none"
            )
        if self.settings.layout.name == "messages" and not editor.tokenizer.base.chat_template:
            raise ToEditError(f"the tokenizer of {self.settings.model} has no chat template for messages")

    def _run(self, editor: Editor, manifest: Manifest, on_progress: Callable[[int, int], None]) -> int:
        n_tokens = 0
        before = list(accumulate((file.n_rows for file in self.files), initial=0))
        with Commits(self.out, manifest, self.files, self.settings) as results:
            items = self._items(editor.tokenizer.base, results)
            with WritingBehind(results.take, _AHEAD) as writer, reading_ahead(items, _AHEAD) as ahead:
                for item in self._edited(ahead, editor):
                    writer.put(item)
                    if item.outcome is not None and item.outcome.stats and not item.replayed:
                        n_tokens += item.outcome.stats.n_tokens
                    on_progress(before[item.source] + item.row.number, before[-1])
            results.finish()
            write_report(self.out)
            manifest.finish()
        return n_tokens

    def _edited(self, items: Iterable[Item], editor: Editor) -> Iterator[Item]:
        """The items in order, each with its outcome; no two shards are edited together."""
        rows = self.settings.shard_rows
        for _, shard in groupby(items, lambda item: (item.source, (item.row.number - 1) // rows)):
            yield from _edited(shard, editor, self.settings.provenance)

    def _items(self, tokenizer: PreTrainedTokenizerBase, results: Commits) -> Iterator[Item]:
        """All rows that no finished shard covers, in order."""
        source, number = results.position
        layout = self.settings.layout
        columns = [*layout.columns, *layout.optional, *filter(None, [self.settings.id_column])]
        for index in range(source, len(self.files)):
            for row in read_rows(self.files[index].source, columns):
                if index > source or row.number > number:
                    yield self._item(index, row, tokenizer, results.replayed.pop((index, row.number), None))

    def _item(
        self, source: int, row: Row | BadRow, tokenizer: PreTrainedTokenizerBase, replayed: Outcome | None
    ) -> Item:
        if isinstance(row, BadRow):
            return Item(source, row, outcome=Outcome(None, reason=row.reason, excerpt=row.excerpt))
        if replayed is not None:
            return Item(source, row, outcome=replayed, replayed=True)
        try:
            return Item(source, row, task=self._task(row, tokenizer))
        except ToEditError as error:
            return Item(source, row, outcome=Outcome(None, reason=str(error)))

    def _task(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> Task:
        layout, id_column = self.settings.layout, self.settings.id_column
        problem = missing(row.values, [*layout.columns, *filter(None, [id_column])])
        if problem is not None:
            raise ToEditError(problem)
        doc_id = content_id(row.values, layout) if id_column is None else row.values[id_column]
        document_name(doc_id)  # refuses what is no id
        return layout.task(row.values, doc_id, tokenizer)


def _edited(items: Iterable[Item], editor: Editor, provenance: bool) -> Iterator[Item]:
    """The items in order, each with its outcome."""
    waiting: deque[Item] = deque()

    def documents() -> Iterator[Document]:
        for item in items:
            waiting.append(item)
            if item.task is not None:
                yield item.task.document

    for result in resilient(editor, documents()):
        while waiting[0].task is None:
            yield waiting.popleft()
        item = waiting.popleft()
        assert item.task is not None
        item.outcome = Outcome.of(result, item.task, provenance)
        yield item
    yield from waiting


def resilient(editor: Editor, documents: Iterable[Document]) -> Iterator[EditResult | EditFailure]:
    """The editor's stream, where a batch that fails is tried again a document at a time.

    A document that fails alone too is an `EditFailure`. After several of them in a row the error is raised,
    and a `ToEditError` is at once, since another document would not mend it.
    """
    waiting: deque[Document] = deque()
    stream, broken = iter(documents), []

    def handed() -> Iterator[Document]:
        try:
            for document in stream:
                waiting.append(document)
                yield document
        except Exception as error:  # of the one who hands them, not of the editor
            broken.append(error)
            raise

    while True:
        try:
            for result in editor.edit_stream(handed(), commits.CHUNK):
                waiting.popleft()
                yield result
            return
        except RuntimeError:
            if broken:
                raise
        yield from _one_by_one(editor, waiting)


def _one_by_one(editor: Editor, waiting: deque[Document]) -> Iterator[EditResult | EditFailure]:
    failures = 0
    while waiting:
        document = waiting.popleft()
        result: EditResult | EditFailure
        try:
            (result,) = editor.edit_stream([document])
            failures = 0
        except RuntimeError as error:
            failures += 1
            if failures == _GIVE_UP:
                raise
            message = str(error).strip().partition("\n")[0]
            result = EditFailure(document.doc_id, f"{type(error).__name__}: {message}")
        yield result
