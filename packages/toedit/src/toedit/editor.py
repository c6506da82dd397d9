"""Texts in, edited texts out: tokenizer, windows, prior, draws and splicing put together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toedit.agreement import LOG_P_ONLY, check_same_tokenizer, disagreed
from toedit.backends import backend_class, is_backend
from toedit.chat import conversation
from toedit.config import OFF, EditConfig
from toedit.documents import Document, EditFailure, EditResult, ScoredText, check_unique, or_raise
from toedit.editing import DROPPED, Scores, edit_scores, swap_probabilities
from toedit.errors import ToEditError
from toedit.protection import protected_tokens
from toedit.splicing import splice
from toedit.statistics import EditStats
from toedit.tokenization import TextTokenizer
from toedit.windows import Window, merge, split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from toedit.backends.base import Backend

DEFAULT_PRIOR = "HuggingFaceTB/SmolLM2-135M"

# Documents that are batched by length together.
BUFFER = 256


@dataclass(frozen=True, eq=False)
class _Prepared:
    document: Document
    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    protected: NDArray[np.bool_]
    windows: list[Window]


class Editor:
    """Edits texts with a prior.

    `model` is a causal language model of transformers, a `vllm.LLM`, a `llama_cpp.Llama`, as `backend` says,
    or an object with the interface of `toedit.backends.base.Backend`; `options` go to the backend.
    `tokenizer` is the model's fast tokenizer. The window is cut to what the model takes in one piece.
    `agree` is a second prior with its tokenizer, which has to be the same one: only tokens that fulfil the
    condition under both are edited (`toedit.agreement`). It costs a second forward pass and a second model.

    The edit of a document depends on its text, its id, the config and the prior, not on the other documents.

    Raises `ToEditError` where model, tokenizer and config do not fit together.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        config: EditConfig | None = None,
        backend: str = "transformers",
        *,
        agree: tuple[Any, PreTrainedTokenizerBase] | None = None,
        **options: Any,
    ) -> None:
        self.config = config or EditConfig()
        if options and all(is_backend(prior) for prior in (model, *(agree or ())[:1])):
            raise ToEditError(
                f"{type(model).__name__} is a backend that is made already; give {', '.join(options)} to it"
            )
        self.backend: Backend = model if is_backend(model) else backend_class(backend)(model, **options)
        self.second: Backend | None = None
        self.tokenizer = TextTokenizer(tokenizer, self.backend.vocab_size)
        if self.config.top_k > self.backend.vocab_size:
            raise ToEditError(
                f"top_k is {self.config.top_k}, more than the {self.backend.vocab_size} tokens of the model"
            )
        if agree is not None:
            other, its_tokenizer = agree
            self.second = other if is_backend(other) else backend_class(backend)(other, **options)
            second_tokenizer = TextTokenizer(its_tokenizer, self.second.vocab_size)
            check_same_tokenizer(self.tokenizer, second_tokenizer, self.config.add_bos)
        limits = [prior.max_window for prior in (self.backend, self.second) if prior is not None]
        self.window = min([self.config.window, *filter(None, limits)])
        self.bos = self.tokenizer.bos(self.config.add_bos)
        split(np.zeros(1, np.int64), self.window, self.config.overlap, self.bos)  # refuses what cannot be

    @classmethod
    def from_pretrained(
        cls,
        name: str = DEFAULT_PRIOR,
        config: EditConfig | None = None,
        backend: str = "transformers",
        *,
        agree: str | None = None,
        **options: Any,
    ) -> Editor:
        """An editor with a model of the hub, a folder, or a GGUF file; `agree` names a second prior likewise,
        for the same backend and with the same options.

        `options` go to the backend: for "transformers" `batch_tokens`, `head_rows` and what
        `AutoModelForCausalLM.from_pretrained` takes, for "vllm" what `vllm.LLM` takes, for "llama_cpp" what
        `llama_cpp.Llama` takes.

        Raises `ToEditError` if the model cannot be had, saying what to do.
        """
        config = config or EditConfig()
        load = backend_class(backend).from_pretrained
        prior, tokenizer = load(name, config, **options)
        second = None if agree is None else load(agree, config, **options)
        return cls(prior, tokenizer, config, agree=second)

    def edit(
        self, text: str, doc_id: int | str, editable: Sequence[tuple[int, int]] | None = None
    ) -> EditResult:
        """Edit one text; `editable` are the only character ranges [start, end) that may change.

        Raises `ToEditError` if the text is no valid Unicode, or the model computes no numbers for it.
        """
        spans = None if editable is None else tuple(editable)
        return or_raise(next(self.edit_stream([Document(doc_id, text, spans)])))

    def edit_chat(
        self, messages: Sequence[Mapping[str, Any]], doc_id: int | str
    ) -> tuple[list[dict[str, Any]], EditResult]:
        """Edit the assistant's replies in a conversation: the messages with them, and the edit of the text
        that the tokenizer's chat template makes. Prompts and the template's own tokens stay.

        Raises `ToEditError` as `edit` and `toedit.chat.conversation` do.
        """
        chat = conversation(messages, self.tokenizer.base, doc_id)
        result = or_raise(next(self.edit_stream([chat.document])))
        return chat.updated(result), result

    def edit_batch(self, texts: Sequence[str], doc_ids: Sequence[int | str]) -> list[EditResult]:
        """Edit texts; the results are those of `edit`, in order, and come faster.

        Raises `ToEditError` for repeated ids, for a text in place of a list, and at the first text that
        cannot be edited.
        """
        _refuse_one(texts)
        if len(texts) != len(doc_ids):
            raise ToEditError(f"there are {len(doc_ids)} doc_ids for {len(texts)} texts")
        check_unique(doc_ids, set())
        documents = (Document(doc_id, text) for doc_id, text in zip(doc_ids, texts, strict=True))
        return [or_raise(outcome) for outcome in self.edit_stream(documents)]

    def edit_stream(
        self, documents: Iterable[Document], buffer: int = BUFFER
    ) -> Iterator[EditResult | EditFailure]:
        """Edit documents as they come, in order; one that cannot be edited gives an `EditFailure`.

        `buffer` documents at a time are batched by length. While the prior works on them, the next ones are
        tokenized.
        """
        for prepared in self._prepared(documents, buffer, self.config.protect):
            for scored in self._scored(prepared, self.config):
                yield scored if isinstance(scored, EditFailure) else self._edited(scored)

    def score(self, texts: Sequence[str | Document], config: EditConfig | None = None) -> list[ScoredText]:
        """The prior's scores of texts, nothing edited: for a distribution, a calibration, expected changes.

        A `Document` says which part of its text may be edited.

        `config`, by default the editor's, says at which tokens the top ones are wanted (a threshold of `OFF`
        wants none) and what is protected. Windows are the editor's.

        Raises `ToEditError` at the first text that cannot be scored, and for a text in place of a list.
        """
        _refuse_one(texts)
        config = config or self.config
        found: list[ScoredText] = []
        documents = (
            text if isinstance(text, Document) else Document(index, text) for index, text in enumerate(texts)
        )
        for prepared in self._prepared(documents, BUFFER, config.protect):
            found += map(or_raise, self._scored(prepared, config))
        return found

    def expected_changes(self, texts: Sequence[str | Document]) -> list[float]:
        """How many tokens of each text change on average over seeds, without drawing.

        The sum of 1 - q(original) over the candidates, before `max_edit_fraction`, and before edits are taken
        back that the text could not hold.
        """
        return [float(self._swap(scored).sum()) for scored in self.score(texts)]

    def map(
        self,
        dataset: Any,
        text_column: str = "text",
        id_column: str | None = "id",
        *,
        provenance: bool = False,
        batch_size: int = BUFFER,
    ) -> Any:
        """The same `datasets.Dataset` or `IterableDataset` with its text column edited.

        All columns are kept. `id_column` has a different whole number or text for each document; None takes
        a hash of the text. `provenance` adds the columns `toedit_candidates` and `toedit_changed` (counts)
        and `toedit_edits` (lists of `Edit`, as dictionaries; see `toedit.provenance`).

        Raises `ToEditError` for columns that are not there, naming those that are; for repeated ids; and for
        a text that cannot be edited.
        """
        from toedit.mapping import map_dataset

        return map_dataset(self, dataset, text_column, id_column, provenance, batch_size)

    def _prepared(
        self, documents: Iterable[Document], buffer: int, protect: Sequence[str | int]
    ) -> Iterator[list[_Prepared | EditFailure]]:
        stream = iter(documents)
        waiting: deque[Future[list[_Prepared | EditFailure]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            while chunk := list(islice(stream, buffer)):
                waiting.append(pool.submit(self._prepare, chunk, protect))
                if len(waiting) > 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _prepare(
        self, documents: list[Document], protect: Sequence[str | int]
    ) -> list[_Prepared | EditFailure]:
        problems = [_problem(document) for document in documents]
        good = [document for document, problem in zip(documents, problems, strict=True) if problem is None]
        encoded = iter(self.tokenizer.encode([document.text for document in good]))
        return [
            self._windowed(document, *next(encoded), protect) if problem is None else problem
            for document, problem in zip(documents, problems, strict=True)
        ]

    def _windowed(
        self,
        document: Document,
        ids: NDArray[np.int64],
        offsets: NDArray[np.int64],
        protect: Sequence[str | int],
    ) -> _Prepared:
        protected = protected_tokens(document.text, ids, offsets, protect, document.editable)
        blank = not document.text.strip()
        windows = [] if blank else split(ids, self.window, self.config.overlap, self.bos)
        return _Prepared(document, ids, offsets, protected, windows)

    def _scored(
        self, prepared: list[_Prepared | EditFailure], config: EditConfig
    ) -> Iterator[ScoredText | EditFailure]:
        windows = [window for item in prepared if isinstance(item, _Prepared) for window in item.windows]
        parts = [(self.backend, iter(self.backend.score(windows, config)))]
        if self.second is not None:
            parts.append((self.second, iter(self.second.score(windows, LOG_P_ONLY))))
        for item in prepared:
            if isinstance(item, EditFailure):
                yield item
                continue
            own = [(prior, list(islice(scores, len(item.windows)))) for prior, scores in parts]
            yield self._merged(item, own, config)

    def _merged(
        self, item: _Prepared, parts: list[tuple[Backend, list[Scores]]], config: EditConfig
    ) -> ScoredText | EditFailure:
        """A document's scores from those of its windows, by each prior."""
        merged: list[Scores] = []
        for prior, scores in parts:
            try:
                merged.append(merge(len(item.ids), item.windows, scores))
            except ToEditError as error:
                which = "the second prior: " if prior is self.second else ""
                wide = prior.dtype in ("float32", "bfloat16", "float64")
                advice = "its weights may be damaged" if wide else "run the model in float32 or bfloat16"
                return EditFailure(
                    item.document.doc_id, f"{which}{error}, computed in {prior.dtype}; {advice}"
                )
        first, *others = merged
        scored = ScoredText(item.document, item.ids, item.offsets, item.protected, first)
        if not others:
            return scored
        second = others[0].log_p
        protected = item.protected | disagreed(first.log_p, second, config)
        return replace(scored, protected=protected, second=second)

    def _edited(self, scored: ScoredText) -> EditResult:
        document, ids, specials = scored.document, scored.ids, self.tokenizer.specials
        edited = edit_scores(ids, scored.scores, self.config, document.doc_id, 0, scored.protected, specials)
        spliced = splice(document.text, ids, scored.offsets, edited, scored.log_p, self.tokenizer.decode)
        new_ids = spliced.edited.ids[spliced.edited.ids != DROPPED]
        again = self.tokenizer.encode([spliced.text])[0][0] if spliced.edits else new_ids
        stats = EditStats.of_document(
            scored.log_p,
            spliced.edited,
            self._swap(scored),
            n_empty=int(not document.text.strip()),
            n_skipped=spliced.n_skipped,
            n_retokenized=int(not np.array_equal(again, new_ids)),
        )
        return EditResult(document.doc_id, spliced.text, new_ids, spliced.edits, stats)

    def _swap(self, scored: ScoredText) -> NDArray[np.float64]:
        return swap_probabilities(
            scored.ids, scored.scores, self.config, scored.protected, self.tokenizer.specials
        )


def score(
    texts: Sequence[str], model: str | Editor = DEFAULT_PRIOR, backend: str = "transformers", **options: Any
) -> list[NDArray[np.floating]]:
    """log P(x_i | x_<i) of every token of every text: float32 [n] each, NaN where not scored.

    `model` is an `Editor` or what `Editor.from_pretrained` takes; raises `ToEditError` as that does.
    """
    config = EditConfig(threshold=OFF)
    editor = model if isinstance(model, Editor) else Editor.from_pretrained(model, config, backend, **options)
    return [scored.log_p for scored in editor.score(texts, config)]


def _refuse_one(texts: object) -> None:
    """Raises `ToEditError` for one text: a string is a sequence too, of its letters."""
    if isinstance(texts, str | Document):
        raise ToEditError(f"texts is a single {type(texts).__name__}; give a list of texts")


def _problem(document: Document) -> EditFailure | None:
    text: object = document.text  # files hold all sorts of values
    if not isinstance(text, str):
        return EditFailure(document.doc_id, f"the text is of type {type(text).__name__}, not a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return EditFailure(
            document.doc_id,
            f"the text is no valid Unicode: character {error.start} is half of a surrogate pair",
        )
    return None
