"""The characters that every token covers: from the tokenizer where it gives them, else by decoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from implicit_prm.errors import ImplicitPRMError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens: TypeAlias = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]
"""Token ids, and (start, end) in characters of each."""

_BROKEN = "\ufffd"  # what decoders put where bytes are no character, or not yet one


def encode_texts(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tokens]:
    """Every different text as its tokens, nothing added to it and nothing cut.

    Raises `ImplicitPRMError` for a tokenizer that cannot say which characters a token covers.
    """
    unique = list(dict.fromkeys(texts))
    if not unique:
        return {}
    if not getattr(tokenizer, "is_fast", False):
        raise ImplicitPRMError(
            f"{type(tokenizer).__name__} gives no character offsets, which steps need; load a fast tokenizer "
            "(one with a tokenizer.json), or give rows as prompt_ids and completion_ids"
        )
    found = tokenizer(
        unique,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # a warning about the model's longest input: max_length is ours to check
    )
    rows = zip(unique, found["input_ids"], found["offset_mapping"], strict=True)
    return {text: (tuple(ids), tuple((start, end) for start, end in spans)) for text, ids, spans in rows}


def decode_responses(
    responses: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    """The text of each response, and the characters that each of its tokens covers.

    Special tokens that end a response (EOS, end of turn) are no text: their span is empty, at its end.
    """
    special = special_ids(tokenizer)
    bodies = [tuple(ids[: _body_length(ids, special)]) for ids in responses]
    texts = [decode(body, tokenizer) for body in bodies]
    # Mostly the text has the same tokens, and the tokenizer's own offsets are the fast and exact answer.
    again = encode_texts(texts, tokenizer) if getattr(tokenizer, "is_fast", False) else {}
    decoded = []
    for ids, body, text in zip(responses, bodies, texts, strict=True):
        same, spans = again.get(text, ((), ()))
        if same != body:
            text, spans = decoded_offsets(body, tokenizer)
        ends = ((len(text), len(text)),) * (len(ids) - len(body))
        decoded.append((text, (*spans, *ends)))
    return decoded


def decoded_offsets(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Decode token by token: the text, and the characters that each token brings.

    Where several tokens make one character, it is the last one's; the others have the empty span before it.
    """
    text = ""
    spans: list[tuple[int, int]] = []
    # What a token brings depends on tokens before it (spaces, bytes of one character), so decode from
    # `context`, the beginning of the last whole piece, and take what comes after that of ids[context:done].
    context = done = 0
    for reached in range(1, len(ids) + 1):
        known = decode(ids[context:done], tokenizer)
        now = decode(ids[context:reached], tokenizer)
        if now.endswith(_BROKEN) and reached < len(ids):
            continue
        at = len(text)
        text += now[len(known) :]
        spans += [(at, at)] * (reached - done - 1) + [(at, len(text))]
        context, done = done, reached
    return text, tuple(spans)


def decode(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the ids, special tokens by name, spaces as they are."""
    text: Any = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokenizer's special tokens: the named ones, and those that were added as special."""
    added = tokenizer.added_tokens_decoder.items()
    return frozenset([*tokenizer.all_special_ids, *(token for token, content in added if content.special)])


def _body_length(ids: Sequence[int], special: frozenset[int]) -> int:
    length = len(ids)
    while length and ids[length - 1] in special:
        length -= 1
    return length
