"""Rows of prompt and completion as token ids, with the characters that every token covers (section 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from implicit_prm.chat import chat_texts
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.offsets import Tokens, decode_responses, encode_texts, special_ids
from implicit_prm.steps import STEP_HEADER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as the models read it.

    id              the row's id; its position among the rows, as text, where it has none
    prompt_ids      tokens of the prompt, special tokens and chat template included
    completion_ids  tokens of the response: the ones that are scored, at least one
    completion      the response's text
    offsets         (start, end) in `completion` of every completion token, in characters; tokens that end
                    the response (EOS, end of turn) have the empty span at its end
    truncated       whether the response was cut off, by its sampler or by `max_length`
    """

    id: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    completion: str
    offsets: tuple[tuple[int, int], ...]
    truncated: bool

    @property
    def input_ids(self) -> tuple[int, ...]:
        """Prompt and completion, as they go into a model."""
        return self.prompt_ids + self.completion_ids

    @property
    def completion_mask(self) -> tuple[bool, ...]:
        """True for every token of `input_ids` that belongs to the completion."""
        return (False,) * len(self.prompt_ids) + (True,) * len(self.completion_ids)


def encode_rows(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    add_eos: bool = False,
    max_length: int | None = None,
    truncate: Literal["error", "right"] = "error",
    render: Literal["original", "official"] = "original",
) -> list[Encoded]:
    """Encode rows, in their order.

    A row has "prompt" (text as it is, or messages for the chat template) or "prompt_ids", and "completion"
    (text, or after messages also messages) or "completion_ids"; further "id" and "truncated", if it likes.
    Text is read with the BOS that the tokenizer puts first itself. A completion is split into tokens
    together with its prompt, unless a token would then reach over the border: a sampler does not see those,
    so the completion is split by itself. Responses given as tokens are scored as these very tokens.

    add_eos     append the EOS token to completions that were not cut off and do not end in a special token
    max_length  most tokens of prompt and completion together
    truncate    completions that are too long: an error, or cut at the right and marked as truncated
    render      "official": the text that the official evaluation scores instead of the response's own (2.4)

    A response is truncated if the row says so or it was cut here; one given as tokens, of which the row says
    nothing, also if no special token ends it and `add_eos` does not either.

    Raises `ImplicitPRMError`, naming the row, for rows of another form, empty prompts and completions, ids
    outside the vocabulary, a doubled BOS or chat template, and what is longer than `max_length`.
    """
    if add_eos and tokenizer.eos_token_id is None:
        raise ImplicitPRMError("add_eos=True, but the tokenizer has no EOS token; set tokenizer.eos_token")
    if truncate not in ("error", "right"):
        raise ImplicitPRMError(f"truncate={truncate!r} is unknown; allowed: 'error', 'right'")
    if render not in ("original", "official"):
        raise ImplicitPRMError(f"render={render!r} is unknown; allowed: 'original', 'official'")
    special = special_ids(tokenizer)
    names = tuple(tokenizer.convert_ids_to_tokens(sorted(special)))
    vocabulary = len(tokenizer)  # which a tokenizer counts anew at each call
    sources = [_source(number, row, tokenizer, names, vocabulary, render) for number, row in enumerate(rows)]
    encoded = _encode(sources, tokenizer, special)
    finished = []
    for source, row in zip(sources, encoded, strict=True):
        ends = row.completion_ids[-1:] and row.completion_ids[-1] in special
        if source.truncated is None and source.completion_ids is not None:
            row = replace(row, truncated=not (ends or add_eos))
        if add_eos and not ends and not row.truncated:
            row = _with_end(row, tokenizer.eos_token_id)
        _check(row, tokenizer)
        finished.append(row if max_length is None else _fitted(row, max_length, truncate))
    return finished


@dataclass(frozen=True, slots=True)
class _Source:
    """A row as texts or tokens; a text does not matter where there are tokens."""

    id: str
    truncated: bool | None  # None where the row does not say
    chat: bool  # the texts are of a chat template, with its BOS and its end of turn
    prompt: str
    completion: str
    prompt_ids: tuple[int, ...] | None
    completion_ids: tuple[int, ...] | None


def official_text(text: str) -> str:
    """A response as the official evaluation rewrites it: steps numbered anew, a blank line between them.

    It cuts at `Step n:`, wherever that stands, and writes every other "Step" small. `split_steps` gives its
    steps back with "step_header", also where a step has blank lines of its own.
    """
    pieces = (piece.strip().replace("Step", "step") for piece in STEP_HEADER.split(text))
    steps = [piece for piece in pieces if piece]
    return "\n\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, start=1))


def _source(
    number: int,
    row: Any,
    tokenizer: PreTrainedTokenizerBase,
    special: tuple[str, ...],
    vocabulary: int,
    render: str,
) -> _Source:
    if not isinstance(row, Mapping):
        raise ImplicitPRMError(f"row {number}: {type(row).__name__} is no mapping with prompt and completion")
    name = str(number if row.get("id") is None else row["id"])
    truncated = row.get("truncated")
    prompt, completion = row.get("prompt"), row.get("completion")
    prompt_ids, completion_ids = (
        _ids(name, row, key, vocabulary) for key in ("prompt_ids", "completion_ids")
    )
    if (prompt is None and prompt_ids is None) or (completion is None and completion_ids is None):
        raise ImplicitPRMError(
            f"row {name!r} has the keys {sorted(row)}: it needs prompt and completion, "
            "or prompt_ids and completion_ids"
        )
    if prompt_ids is not None and completion_ids is None:
        raise ImplicitPRMError(
            f"row {name!r}: prompt_ids go with completion_ids, not with a completion's text"
        )
    if completion_ids is not None:
        if render == "official":
            raise ImplicitPRMError(
                f'row {name!r}: render="official" rewrites text, and its response is tokens'
            )
        completion = None
    elif not completion or not isinstance(completion, str | Sequence):
        raise ImplicitPRMError(
            f"row {name!r}: the completion is {completion!r}; give text, or leave the row out"
        )
    elif render == "official":
        prompt, completion = _official(name, prompt, completion)
    chat = prompt_ids is None and not isinstance(prompt, str)
    if chat:
        prompt, completion = chat_texts(name, prompt, completion, tokenizer, special)
    elif completion is not None and not isinstance(completion, str):
        raise ImplicitPRMError(f"row {name!r}: a completion of messages needs a prompt of messages")
    _check_characters(name, "prompt", prompt)
    _check_characters(name, "completion", completion)
    return _Source(
        id=name,
        truncated=None if truncated is None else bool(truncated),
        chat=chat,
        prompt=prompt or "",
        completion=completion or "",
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
    )


def _ids(name: str, row: Mapping[str, Any], key: str, vocabulary: int) -> tuple[int, ...] | None:
    if row.get(key) is None:
        return None
    try:
        ids = tuple(index(token) for token in row[key])
    except TypeError as error:
        raise ImplicitPRMError(f"row {name!r}: {key} are not whole numbers: {error}") from error
    wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise ImplicitPRMError(
            f"row {name!r}: token {wrong} is not in the tokenizer's vocabulary of {vocabulary}; "
            "were the ids made by another tokenizer?"
        )
    return ids


def _check_characters(name: str, key: str, text: str | None) -> None:
    """JSON can hold half of a surrogate pair, which is no character and which no tokenizer takes."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise ImplicitPRMError(
            f"row {name!r}: the {key} has {error.object[error.start]!r} at character {error.start}, half of "
            "a surrogate pair: write its text anew, or leave the row out"
        ) from error


def _official(name: str, prompt: Any, completion: Any) -> tuple[Any, str]:
    """A user's message and the assistant's reply, as the official evaluation puts them into the template."""
    if not isinstance(completion, str):
        message = completion[0] if len(completion) == 1 else None
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise ImplicitPRMError(
                f'row {name!r}: render="official" needs one reply, as text or as one message'
            )
        completion = message["content"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return messages, official_text(completion)


def _encode(
    sources: Sequence[_Source], tokenizer: PreTrainedTokenizerBase, special: frozenset[int]
) -> list[Encoded]:
    """The rows as tokens, all texts in one call of the tokenizer; nothing is checked yet."""
    written = [source for source in sources if source.completion_ids is None]
    prompts = [source.prompt for source in sources if source.prompt_ids is None]
    tokens = encode_texts([*prompts, *(source.prompt + source.completion for source in written)], tokenizer)
    after = [_after(source, tokens) for source in written]
    apart = [source.completion for source, found in zip(written, after, strict=True) if found is None]
    alone = encode_texts(apart, tokenizer)
    sampled = [source.completion_ids for source in sources if source.completion_ids is not None]
    of_texts, of_tokens = iter(after), iter(decode_responses(sampled, tokenizer))
    bos = _own_bos(tokenizer)
    rows = []
    for source in sources:
        before = source.prompt_ids
        if before is None:
            before = (() if source.chat else bos) + tokens[source.prompt][0]
        truncated = bool(source.truncated)
        if source.completion_ids is None:
            ids, offsets = next(of_texts) or alone[source.completion]
            row = Encoded(source.id, before, ids, source.completion, offsets, truncated)
            rows.append(_without_decoration(row, special) if source.chat else row)
        else:
            text, offsets = next(of_tokens)
            rows.append(Encoded(source.id, before, source.completion_ids, text, offsets, truncated))
    return rows


def _after(source: _Source, tokens: Mapping[str, Tokens]) -> Tokens | None:
    """The completion's tokens as they follow the prompt's; None if a token reaches over the border."""
    before, _ = tokens[source.prompt]
    ids, spans = tokens[source.prompt + source.completion]
    if ids[: len(before)] != before:
        return None
    border = len(source.prompt)
    inside = tuple((max(start - border, 0), max(end - border, 0)) for start, end in spans[len(before) :])
    return ids[len(before) :], inside


def _own_bos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer itself puts before a text: its BOS, or nothing."""
    first = tuple(tokenizer("")["input_ids"][:1])
    return first if first == (tokenizer.bos_token_id,) else ()


def _without_decoration(row: Encoded, special: frozenset[int]) -> Encoded:
    """A templated reply up to its end of turn, which is no text; without it where the reply was cut off.

    What templates write after the end of turn (ChatML: a line end) no model has sampled.
    """
    last = max((at for at, token in enumerate(row.completion_ids) if token in special), default=None)
    if last is None or row.completion[row.offsets[last][1] :].strip():
        return row
    border = row.offsets[last][0]
    kept = replace(
        row,
        completion_ids=row.completion_ids[:last],
        completion=row.completion[:border],
        offsets=row.offsets[:last],
    )
    return kept if row.truncated else _with_end(kept, row.completion_ids[last])


def _with_end(row: Encoded, token: int) -> Encoded:
    end = len(row.completion)
    return replace(row, completion_ids=(*row.completion_ids, token), offsets=(*row.offsets, (end, end)))


def _check(row: Encoded, tokenizer: PreTrainedTokenizerBase) -> None:
    if not row.prompt_ids:
        raise ImplicitPRMError(
            f"row {row.id!r}: the prompt has no tokens, so the response's first token has no past to be "
            "scored from; give a prompt, or the BOS token as one"
        )
    if not row.completion_ids:
        raise ImplicitPRMError(f"row {row.id!r}: the completion has no tokens; leave the row out")
    if row.prompt_ids[:2] == (tokenizer.bos_token_id,) * 2:
        raise ImplicitPRMError(
            f"row {row.id!r}: the prompt begins with the BOS token {tokenizer.bos_token!r} twice; its text "
            "has one already (from a chat template?): give messages, or text without it"
        )


def _fitted(row: Encoded, max_length: int, truncate: str) -> Encoded:
    length = len(row.prompt_ids) + len(row.completion_ids)
    if length <= max_length:
        return row
    room = max_length - len(row.prompt_ids)
    if room < 1:
        raise ImplicitPRMError(
            f"row {row.id!r}: the prompt alone has {len(row.prompt_ids)} tokens, which leaves no room for a "
            f"completion in max_length={max_length}; raise it, or leave the row out"
        )
    if truncate == "error":
        raise ImplicitPRMError(
            f"row {row.id!r} has {length} tokens, more than max_length={max_length}; raise it, or cut "
            'completions with truncate="right", which marks them as truncated'
        )
    offsets = row.offsets[:room]
    return replace(
        row,
        completion_ids=row.completion_ids[:room],
        completion=row.completion[: offsets[-1][1]],
        offsets=offsets,
        truncated=True,
    )
