"""Samples of a policy: by a model of transformers here, by vLLM, or by a completions server."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from implicit_prm.backends.hf import evaluating
from implicit_prm.decoding import Written, write
from implicit_prm.encoding import encode_rows
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.offsets import decode, special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Prompt: TypeAlias = str | Sequence[dict[str, Any]] | Sequence[int]
"""Text, messages for the chat template, or token ids."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One response to a prompt.

    text       what was written, without the end token
    token_ids  its T tokens, the end token included where it was written
    log_probs  float32 [T]: log-prob of each token under the policy itself, at temperature 1 and with nothing
               cut, whatever it was drawn with; None where a server does not give them
    truncated  whether it stopped because of `max_tokens`
    """

    text: str
    token_ids: tuple[int, ...]
    log_probs: npt.NDArray[np.float32] | None
    truncated: bool


@runtime_checkable
class Sampler(Protocol):
    """Anything that writes responses. Whoever trains the policy adds what brings its weights here."""

    def sample(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 1024,
        seed: int | None = None,
    ) -> list[list[Sample]]:
        """Draw `n` responses to each prompt, in the prompts' order.

        temperature  0: always the most probable token
        top_p        keep the most probable tokens, as many as have this share of the probability
        max_tokens   the most tokens of a response
        seed         the same seed gives the same responses again on the same machine; None: fresh ones

        Raises `ImplicitPRMError` for settings out of range and prompts that cannot be read or do not fit.
        """
        ...


class HFSampler:
    """A `Sampler` on a causal language model of transformers, also one wrapped by PEFT, where it is.

    `batch_size` is the number of responses written at once. Each response has random numbers of its own, so
    that with a seed the j-th response to the i-th prompt is the same for any `n` and batch size, but for
    rounding. The model writes in evaluation mode, whatever mode it is in, and always with the weights that it
    has at the time.

    Raises `ImplicitPRMError` for `batch_size` below 1 and a tokenizer without an end token.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int = 64
    ) -> None:
        if batch_size < 1:
            raise ImplicitPRMError(f"batch_size must be at least 1, not {batch_size}")
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.ends = _end_tokens(model, tokenizer)
        self.context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def sample(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 1024,
        seed: int | None = None,
    ) -> list[list[Sample]]:
        """See `Sampler.sample`. Raises `ImplicitPRMError` also where memory or the model's numbers fail."""
        check_settings(n, temperature, top_p, max_tokens, seed)
        ids = prompt_ids(prompts, self.tokenizer)
        check_lengths(ids, max_tokens, self.context)
        root = secrets.randbits(64) if seed is None else seed
        pairs = [(prompt, number) for prompt in range(len(ids)) for number in range(n)]
        pairs.sort(key=lambda pair: len(ids[pair[0]]), reverse=True)
        written: list[Written] = []
        with evaluating(self.model):
            for at in range(0, len(pairs), self.batch_size):
                batch = pairs[at : at + self.batch_size]
                luck = [np.random.default_rng([root, *pair]).random(max_tokens) for pair in batch]
                followed = [ids[prompt] for prompt, _ in batch]
                written += self._write(followed, np.stack(luck), temperature, top_p)
        found = dict(zip(pairs, self._samples(written), strict=True))
        return [[found[prompt, number] for number in range(n)] for prompt in range(len(ids))]

    def _write(
        self,
        prompts: Sequence[tuple[int, ...]],
        uniforms: npt.NDArray[np.float64],
        temperature: float,
        top_p: float,
    ) -> list[Written]:
        """A batch: one sample a prompt, and equal prompts read once."""
        unique = {prompt: at for at, prompt in enumerate(dict.fromkeys(prompts))}
        owners = [unique[prompt] for prompt in prompts]
        try:
            return write(self.model, list(unique), owners, uniforms, self.ends, temperature, top_p)
        except torch.OutOfMemoryError as error:
            raise ImplicitPRMError(
                f"{len(prompts)} responses at once do not fit into memory; lower batch_size"
            ) from error

    def _samples(self, written: Sequence[Written]) -> Iterator[Sample]:
        texts = response_texts([one.token_ids for one in written], self.tokenizer)
        for text, one in zip(texts, written, strict=True):
            if np.isnan(one.log_probs).any():
                raise ImplicitPRMError(
                    "the model's logits have NaN; is its checkpoint whole, and its dtype right?"
                )
            yield Sample(text, one.token_ids, one.log_probs, truncated=not one.ended)


def prompt_ids(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    """The prompts as a policy reads them: the same tokens as `encode_rows` gives them when they are scored.

    Raises `ImplicitPRMError`, naming the prompt by its position, for one that `encode_rows` refuses.
    """
    rows = [
        {"prompt_ids" if _is_ids(prompt) else "prompt": prompt, "completion_ids": [0]} for prompt in prompts
    ]
    return [row.prompt_ids for row in encode_rows(rows, tokenizer)]


def response_texts(responses: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts of responses: special tokens at the end of one are no text, as in `encode_rows`."""
    special = special_ids(tokenizer)
    texts = []
    for ids in responses:
        length = len(ids)
        while length and ids[length - 1] in special:
            length -= 1
        texts.append(decode(ids[:length], tokenizer))
    return texts


def check_settings(n: int, temperature: float, top_p: float, max_tokens: int, seed: int | None) -> None:
    """Raise `ImplicitPRMError`, naming the setting and what is allowed, for one that is out of range."""
    for name, value in (("n", n), ("max_tokens", max_tokens)):
        if value < 1:
            raise ImplicitPRMError(f"{name} must be at least 1, not {value}")
    if not 0 <= temperature < math.inf:
        raise ImplicitPRMError(f"temperature must be a number of at least 0, not {temperature}")
    if not 0 < top_p <= 1:
        raise ImplicitPRMError(f"top_p must be above 0 and at most 1, not {top_p}")
    if seed is not None and seed < 0:
        raise ImplicitPRMError(f"seed must be at least 0, or None for fresh samples, not {seed}")


def check_lengths(prompts: Sequence[Sequence[int]], max_tokens: int, context: int | None) -> None:
    """Raise `ImplicitPRMError` if a prompt and `max_tokens` more do not fit into the model's context.

    `context` is the most tokens that the model reads, None where no limit is known.
    """
    if context is None:
        return
    longest = max(range(len(prompts)), key=lambda row: len(prompts[row]), default=None)
    if longest is not None and len(prompts[longest]) + max_tokens > context:
        raise ImplicitPRMError(
            f"prompt {longest} has {len(prompts[longest])} tokens; with max_tokens={max_tokens} that is more "
            f"than the {context} that the model reads: lower max_tokens, or leave the prompt out"
        )


def _is_ids(prompt: Prompt) -> bool:
    return not isinstance(prompt, str) and all(isinstance(item, int | np.integer) for item in prompt)


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokenizer's EOS and those of the model's generation config: chat models have several."""
    config = getattr(model, "generation_config", None)
    more = None if config is None else config.eos_token_id
    ends = {tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])} - {None}
    if not ends:
        raise ImplicitPRMError(
            "neither tokenizer nor model.generation_config has an end token; set tokenizer.eos_token"
        )
    return sorted(ends)
