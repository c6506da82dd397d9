"""Training pairs and conversations: the model's answers are edited, the prompts and the template are not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from toedit.documents import Document, EditResult
from toedit.errors import ToEditError
from toedit.splicing import Edit, apply_edits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message: TypeAlias = Mapping[str, Any]

_MARK = "\ue000{}\ue001"  # of the private use area, so in nobody's template
_MARKS = re.compile("\ue000\\d+\ue001")


@dataclass(frozen=True)
class Chat:
    """A conversation as the prior reads it, and where its replies stand in that text.

    document  the text that the chat template makes, of which only the replies are editable
    replies   (index of the message, start, end) of each reply in that text
    """

    messages: Sequence[Message]
    document: Document
    replies: tuple[tuple[int, int, int], ...]

    def updated(self, result: EditResult) -> list[dict[str, Any]]:
        """The messages with their replies as edited; everything else is what it was."""
        messages = [dict(message) for message in self.messages]
        placed = self.placed(result.edits)
        for index in {index for index, _ in placed}:
            edits = [edit for number, edit in placed if number == index]
            messages[index]["content"] = apply_edits(messages[index]["content"], edits)
        return messages

    def placed(self, edits: Iterable[Edit]) -> list[tuple[int, Edit]]:
        """(index of the message, edit) of each edit, with `start` and `end` counted in its content."""
        found = []
        for edit in edits:
            for index, start, end in self.replies:
                if start <= edit.start and edit.end <= end:
                    # Templates strip replies; what they strip stays in the message.
                    lead = self.messages[index]["content"].find(self.document.text[start:end])
                    found.append((index, moved(edit, lead - start)))
        return found


def conversation(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, doc_id: int | str) -> Chat:
    """A conversation, `role` and `content` a message, in the tokenizer's chat template.

    The contents of messages of the role "assistant" are editable, and nothing else.

    Raises `ToEditError` for messages of another form, a tokenizer without a template, and a template that
    does not repeat the replies as they are, since edits could not be put back then.
    """
    replies = reply_places(messages)
    marked = [
        {**message, "content": _MARK.format(index)} if index in replies else dict(message)
        for index, message in enumerate(messages)
    ]
    text = _rendered(messages, tokenizer)
    frame = _rendered(marked, tokenizer)
    if _MARKS.findall(frame) == [_MARK.format(index) for index in replies]:
        parts = _MARKS.split(frame)
        for kept in (str, str.strip):
            contents = [kept(messages[index]["content"]) for index in replies]
            if _filled(parts, contents) == text:
                spans = _spans(parts, contents)
                where = tuple((index, *span) for index, span in zip(replies, spans, strict=True))
                return Chat(messages, Document(doc_id, text, tuple(spans)), where)
    raise ToEditError(
        f"document {doc_id!r}: the chat template does not repeat the assistant's replies as they are (it may "
        "leave out their reasoning), so edits could not be put back; set another tokenizer.chat_template"
    )


def reply_places(messages: Sequence[Message]) -> list[int]:
    """The numbers of the messages that are replies with some text, in order.

    Raises `ToEditError` for messages of another form.
    """
    return [index for index, message in enumerate(messages) if _is_reply(index, message)]


def moved(edit: Edit, by: int) -> Edit:
    """The same edit of a text in which it stands `by` characters later."""
    return replace(edit, start=edit.start + by, end=edit.end + by)


def completion(prompt: str, answer: str, doc_id: int | str) -> Document:
    """A pair of a prompt and its answer as one text, of which only the answer is editable.

    The edited answer is `result.text[len(prompt):]`.
    """
    text = prompt + answer
    return Document(doc_id, text, ((len(prompt), len(text)),))


def _is_reply(index: int, message: Any) -> bool:
    if not isinstance(message, Mapping) or "role" not in message:
        raise ToEditError(f"message {index} is not a dictionary with 'role' and 'content': {message!r}")
    content = message.get("content")
    if message["role"] != "assistant" or content is None:  # a call of a tool has no content
        return False
    if not isinstance(content, str):
        raise ToEditError(f"the content of message {index} is of type {type(content).__name__}, not a string")
    return bool(content.strip())


def _rendered(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise ToEditError(
            "the tokenizer has no chat template; set tokenizer.chat_template, or edit prompt and answer "
            "as one text (toedit.chat.completion)"
        )
    try:
        return str(tokenizer.apply_chat_template([dict(message) for message in messages], tokenize=False))
    except Exception as error:  # templates are programs of their own and raise what they like
        raise ToEditError(f"the chat template does not take these messages: {error}") from error


def _filled(parts: Sequence[str], contents: Sequence[str]) -> str:
    return "".join(part + content for part, content in zip(parts, [*contents, ""], strict=True))


def _spans(parts: Sequence[str], contents: Sequence[str]) -> list[tuple[int, int]]:
    spans, at = [], 0
    for part, content in zip(parts, contents, strict=False):
        at += len(part)
        spans.append((at, at + len(content)))
        at += len(content)
    return spans
