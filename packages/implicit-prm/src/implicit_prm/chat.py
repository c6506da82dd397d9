"""Messages as the text that a chat template makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from implicit_prm.errors import ImplicitPRMError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_texts(
    name: str, prompt: Any, completion: Any, tokenizer: PreTrainedTokenizerBase, special: tuple[str, ...]
) -> tuple[str, str | None]:
    """Prompt and completion in the tokenizer's chat template: the text up to the reply, and the reply's.

    `completion` is messages, the text of the assistant's reply, or None (given as tokens); `special` are the
    names of special tokens.
    Raises `ImplicitPRMError`, naming the row, for messages of another form, a reply of nothing but spaces (of
    which the end token alone would be scored, that a template writes after anything), a tokenizer without a
    template, a template that does not take them, and messages that carry the template already.
    """
    _check_messages(name, "prompt", prompt, special)
    before = _rendered(name, prompt, tokenizer, add_generation_prompt=True)
    if completion is None:
        return before, None
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    _check_messages(name, "completion", completion, special)
    if not any(_has_text(message) for message in completion):
        raise ImplicitPRMError(
            f"row {name!r}: its completion is empty, and there is nothing to reward; leave the row out"
        )
    whole = _rendered(name, [*prompt, *completion], tokenizer, add_generation_prompt=False)
    if not whole.startswith(before):
        raise ImplicitPRMError(
            f"row {name!r}: the chat template does not begin a conversation as it begins its prompt (it "
            "may open a reasoning block); give prompt_ids and completion_ids, as they were sampled"
        )
    return before, whole[len(before) :]


def _has_text(message: Mapping[str, Any]) -> bool:
    content = message["content"]
    return bool(message.get("tool_calls") or (content.strip() if isinstance(content, str) else content))


def _rendered(
    name: str,
    messages: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    add_generation_prompt: bool,
) -> str:
    if not tokenizer.chat_template:
        raise ImplicitPRMError(
            f"row {name!r} is to go through the chat template, and the tokenizer has none; "
            "set tokenizer.chat_template, or give the prompt as text"
        )
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except Exception as error:  # templates are programs of their own and raise what they like
        raise ImplicitPRMError(
            f"row {name!r}: the chat template does not take its messages: {error}"
        ) from error
    return str(text)


def _check_messages(name: str, key: str, messages: Any, special: tuple[str, ...]) -> None:
    if not isinstance(messages, Sequence) or not messages:
        raise ImplicitPRMError(f"row {name!r}: the {key} is {messages!r}; give text, or a list of messages")
    for message in messages:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise ImplicitPRMError(
                f"row {name!r}: the {key} has {message!r}, which is no message with 'role' and 'content'"
            )
        content = message["content"]
        if content is None and not message.get("tool_calls"):  # templates write "None"
            raise ImplicitPRMError(
                f"row {name!r}: a message of its {key} has no content; give text, or leave the row out"
            )
        if isinstance(content, str) and content.lstrip().startswith(special):
            raise ImplicitPRMError(
                f"row {name!r}: a message of its {key} begins with a special token, as if the chat template "
                f"were applied already: {content.lstrip()[:40]!r}; give its bare content, or all as text"
            )
