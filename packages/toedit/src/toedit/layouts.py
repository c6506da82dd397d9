"""Where in a row the text to edit stands: a column of text, or the answers of training pairs and chats.

Of pairs and chats only the answers are edited; the prompts are the prior's context (see `toedit.chat`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from toedit.chat import Chat, completion, conversation, moved, reply_places
from toedit.documents import Document, EditResult
from toedit.errors import ToEditError
from toedit.mapping import text_id
from toedit.provenance import PlacedEdit
from toedit.splicing import Edit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Values = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """The document of a row, and what its edit means for the row.

    updated  makes the row's new columns of the edit of the document
    placed   the edits of the document, where they stand in the row's column
    """

    document: Document
    updated: Callable[[EditResult], dict[str, Any]]
    placed: Callable[[Iterable[Edit]], Sequence[PlacedEdit]]


class Layout(Protocol):
    """Which columns of a row are read and written, and how.

    `task` and `answers` raise `ToEditError` for values of another form; `tokenizer` is the prior's, for its
    chat template.
    """

    @property
    def name(self) -> str:
        """One of `LAYOUTS`."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that each row must have."""
        ...

    @property
    def optional(self) -> tuple[str, ...]:
        """Columns that are read too where a row has them."""
        ...

    def task(self, values: Values, doc_id: int | str, tokenizer: PreTrainedTokenizerBase) -> Task:
        """The document of a row whose columns are all there."""
        ...

    def answers(self, values: Values) -> list[str]:
        """The texts of the row that may be edited, as they stand in it; no prior is needed for these."""
        ...


@dataclass(frozen=True)
class TextLayout:
    """A column of text, all of which may be edited."""

    column: str = "text"
    name: str = "text"
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def task(self, values: Values, doc_id: int | str, tokenizer: PreTrainedTokenizerBase) -> Task:
        """See `Layout`."""
        document = Document(doc_id, values[self.column])
        return Task(document, lambda result: {self.column: result.text}, _as_they_are)

    def answers(self, values: Values) -> list[str]:
        """See `Layout`."""
        return [_text(values, self.column)]


@dataclass(frozen=True)
class MessagesLayout:
    """A column of messages, `role` and `content` each: what the assistant says is edited."""

    column: str = "messages"
    name: str = "messages"
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def task(self, values: Values, doc_id: int | str, tokenizer: PreTrainedTokenizerBase) -> Task:
        """See `Layout`."""
        found = conversation(_messages(values, self.column), tokenizer, doc_id)
        return Task(found.document, lambda result: {self.column: found.updated(result)}, found.placed)

    def answers(self, values: Values) -> list[str]:
        """See `Layout`."""
        return _replies(_messages(values, self.column))


@dataclass(frozen=True)
class PromptCompletionLayout:
    """TRL's `prompt` and `completion`, both texts or both lists of messages: the completion is edited."""

    name: str = "prompt-completion"
    columns: tuple[str, ...] = ("prompt", "completion")
    optional: tuple[str, ...] = ()

    def task(self, values: Values, doc_id: int | str, tokenizer: PreTrainedTokenizerBase) -> Task:
        """See `Layout`."""
        if isinstance(values["completion"], str):
            prompt = _text(values, "prompt")
            document = completion(prompt, values["completion"], doc_id)
            return _answer(document, len(prompt), "completion")
        before = _messages(values, "prompt")
        found = _from_message(
            conversation([*before, *_messages(values, "completion")], tokenizer, doc_id), len(before)
        )
        return Task(
            found.document,
            lambda result: {"completion": found.updated(result)[len(before) :]},
            lambda edits: [(index - len(before), edit) for index, edit in found.placed(edits)],
        )

    def answers(self, values: Values) -> list[str]:
        """See `Layout`."""
        if isinstance(values["completion"], str):
            return [values["completion"]]
        return _replies(_messages(values, "completion"))


@dataclass(frozen=True)
class AlpacaLayout:
    """`instruction`, `input` (may be missing or empty) and `output`, of which the output is edited.

    With a chat template, instruction and input are the user's message and the output is the reply, as
    LLaMA-Factory does it; without one the three follow each other on lines of their own.
    """

    name: str = "alpaca"
    columns: tuple[str, ...] = ("instruction", "output")
    optional: tuple[str, ...] = ("input",)

    def task(self, values: Values, doc_id: int | str, tokenizer: PreTrainedTokenizerBase) -> Task:
        """See `Layout`."""
        given = _text(values, "input") if values.get("input") else ""
        prompt = "\n".join(part for part in (_text(values, "instruction"), given) if part)
        output = _text(values, "output")
        if not tokenizer.chat_template:
            return _answer(completion(f"{prompt}\n", output, doc_id), len(prompt) + 1, "output")
        pair = [{"role": "user", "content": prompt}, {"role": "assistant", "content": output}]
        found = conversation(pair, tokenizer, doc_id)
        return Task(
            found.document,
            lambda result: {"output": found.updated(result)[1]["content"]},
            lambda edits: [(None, edit) for _, edit in found.placed(edits)],
        )

    def answers(self, values: Values) -> list[str]:
        """See `Layout`."""
        return [_text(values, "output")]


LAYOUTS = ("text", "messages", "prompt-completion", "alpaca")


def layout_named(name: str, column: str | None = None) -> Layout:
    """The layout of that name; `column` is the text or messages column, where it is not called so.

    Raises `ToEditError` for other names, and for a column of a layout whose columns have fixed names.
    """
    if name not in LAYOUTS:
        raise ToEditError(f"there is no layout {name!r}; there are: {', '.join(LAYOUTS)}")
    if name == "text":
        return TextLayout(column or "text")
    if name == "messages":
        return MessagesLayout(column or "messages")
    if column is not None:
        raise ToEditError(f"the columns of the layout {name!r} have fixed names; leave out the text column")
    return PromptCompletionLayout() if name == "prompt-completion" else AlpacaLayout()


def content_id(values: Values, layout: Layout) -> str:
    """An id for a row without one: a hash of what is edited and its context, the same for equal rows."""
    if isinstance(layout, TextLayout) and isinstance(values[layout.column], str):
        return text_id(values[layout.column])
    columns = [*layout.columns, *layout.optional]
    return text_id(json.dumps([values.get(column) for column in columns], sort_keys=True, default=str))


def _as_they_are(edits: Iterable[Edit]) -> Sequence[PlacedEdit]:
    return [(None, edit) for edit in edits]


def _answer(document: Document, first: int, column: str) -> Task:
    """The task of a pair in which the answer is the text of the document from the character `first` on."""
    return Task(
        document,
        lambda result: {column: result.text[first:]},
        lambda edits: [(None, moved(edit, -first)) for edit in edits],
    )


def _from_message(found: Chat, first: int) -> Chat:
    """The same conversation with only the replies from message `first` on editable."""
    replies = tuple(reply for reply in found.replies if reply[0] >= first)
    spans = tuple((start, end) for _, start, end in replies)
    return replace(found, document=replace(found.document, editable=spans), replies=replies)


def _replies(messages: list[Any]) -> list[str]:
    return [messages[index]["content"] for index in reply_places(messages)]


def _text(values: Values, column: str) -> str:
    if not isinstance(values[column], str):
        raise ToEditError(f"the {column} is of type {type(values[column]).__name__}, not a string")
    return values[column]


def _messages(values: Values, column: str) -> list[Any]:
    if not isinstance(values[column], list):
        raise ToEditError(f"the {column} are of type {type(values[column]).__name__}, not a list")
    return values[column]
