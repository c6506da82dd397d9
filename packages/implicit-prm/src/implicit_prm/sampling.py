"""Samples of a policy: by a model of transformers here, by vLLM, or by a completions server."""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from implicit_prm.backends.hf import evaluating
from implicit_prm.backends.openai import CompletionsServer
from implicit_prm.backends.vllm import check_engine, load_engine
from implicit_prm.decoding import Written, write
from implicit_prm.encoding import encode_rows
from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning, PromptTooLongError
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
    truncated  whether it was cut off, mostly by `max_tokens`, and so has no end token
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


class VLLMSampler:
    """A `Sampler` on a `vllm.LLM`. The same engine can score too, by `VLLMBackend(sampler.llm)`.

    `tokenizer` is the engine's own unless given. With a seed vLLM gives each response a generator of its own,
    so that a response does not depend on the others.

    Raises `ImplicitPRMError` for an engine whose `logprobs_mode` is another than "raw_logprobs".
    """

    def __init__(self, llm: Any, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        self.context: int = check_engine(llm).max_model_len
        self.llm = llm
        self.tokenizer: PreTrainedTokenizerBase = llm.get_tokenizer() if tokenizer is None else tokenizer

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> VLLMSampler:
        """Load the engine by `load_engine`, which raises the errors; `options` are those of `vllm.LLM`."""
        return cls(load_engine(name, **options))

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
        """See `Sampler.sample`."""
        check_settings(n, temperature, top_p, max_tokens, seed)
        ids = prompt_ids(prompts, self.tokenizer)
        check_lengths(ids, max_tokens, self.context)
        from vllm import SamplingParams, TokensPrompt

        end = self.tokenizer.eos_token_id
        settings = [
            SamplingParams(
                n=n,
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_tokens,
                seed=prompt_seed,
                stop_token_ids=[] if end is None else [end],
                logprobs=0,
                flat_logprobs=True,
                detokenize=False,
            )
            for prompt_seed in _prompt_seeds(seed, len(ids))
        ]
        asked = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in ids]
        outputs = self.llm.generate(asked, settings, use_tqdm=False)
        return [self._samples(output.outputs) for output in outputs]

    def _samples(self, written: Sequence[Any]) -> list[Sample]:
        written = sorted(written, key=lambda one: one.index)
        texts = response_texts([one.token_ids for one in written], self.tokenizer)
        return [
            Sample(
                text,
                tuple(one.token_ids),
                np.asarray(one.logprobs.logprobs, dtype=np.float32),
                truncated=one.finish_reason != "stop",
            )
            for text, one in zip(texts, written, strict=True)
        ]


# Servers have these as defaults of their own, or take them from the model's generation config.
_NOTHING_CUT = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class OpenAISampler:
    """A `Sampler` on a completions server.

    vLLM's server says which tokens it wrote. Others do not: then the tokens are those of the text as the
    tokenizer splits it, which may not be the ones that were drawn, there are no log-probs, and an
    `ImplicitPRMWarning` tells so. `tokenizer` is the served model's; without it prompts are text or token
    ids, and the server must be vLLM's.
    """

    def __init__(self, server: CompletionsServer, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        self.server = server
        self.tokenizer = tokenizer

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
        """See `Sampler.sample`. Raises `ImplicitPRMError` also for a server that fails."""
        check_settings(n, temperature, top_p, max_tokens, seed)
        settings: dict[str, Any] = {
            "n": n,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "logprobs": 1,
            "extra_body": {"return_token_ids": True, **_NOTHING_CUT},
        }
        asked = self._prompts(prompts)
        answers = self.server.complete(
            [
                {"prompt": prompt, "seed": prompt_seed, **settings}
                for prompt, prompt_seed in zip(asked, _prompt_seeds(seed, len(asked)), strict=True)
            ]
        )
        choices = [sorted(answer.choices, key=lambda choice: choice.index) for answer in answers]
        if any(getattr(choice, "token_ids", None) is None for row in choices for choice in row):
            warnings.warn(
                f"{self.server.client.base_url} does not say which tokens it wrote: they are split anew from "
                "the text, and there are no log-probs",
                ImplicitPRMWarning,
                stacklevel=2,
            )
        return [[self._sample(choice) for choice in row] for row in choices]

    def _prompts(self, prompts: Sequence[Prompt]) -> list[str | list[int]]:
        if self.tokenizer is not None:
            return [list(ids) for ids in prompt_ids(prompts, self.tokenizer)]
        if any(not isinstance(prompt, str) and not _is_ids(prompt) for prompt in prompts):
            raise ImplicitPRMError(
                "messages need the chat template: give OpenAISampler the model's tokenizer"
            )
        return [prompt if isinstance(prompt, str) else list(prompt) for prompt in prompts]  # type: ignore[arg-type]

    def _sample(self, choice: Any) -> Sample:
        truncated = choice.finish_reason != "stop"
        ids = getattr(choice, "token_ids", None)
        if ids is not None:
            values = None if choice.logprobs is None else choice.logprobs.token_logprobs
            log_probs = None if values is None else np.asarray(values, dtype=np.float32)
            return Sample(choice.text, tuple(ids), log_probs, truncated)
        if self.tokenizer is None:
            raise ImplicitPRMError(
                f"{self.server.client.base_url} does not say which tokens it wrote; "
                "give OpenAISampler the model's tokenizer, or serve the model by vLLM"
            )
        ids = self.tokenizer(choice.text, add_special_tokens=False).input_ids
        end = [] if truncated else [self.tokenizer.eos_token_id]
        return Sample(choice.text, (*ids, *end), None, truncated)


def prompt_ids(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, names: Sequence[str] | None = None
) -> list[tuple[int, ...]]:
    """The prompts as a policy reads them: the same tokens as `encode_rows` gives them when they are scored.

    Raises `ImplicitPRMError` for one that `encode_rows` refuses, which is called by its name, or else by its
    position.
    """
    rows = [
        {"id": name, "prompt_ids" if _is_ids(prompt) else "prompt": prompt, "completion_ids": [0]}
        for name, prompt in zip(names or range(len(prompts)), prompts, strict=True)
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
    """Raise `PromptTooLongError` if a prompt and `max_tokens` more do not fit into the model's context.

    `context` is the most tokens that the model reads, None where no limit is known.
    """
    if context is None:
        return
    longest = max(range(len(prompts)), key=lambda row: len(prompts[row]), default=None)
    if longest is not None and len(prompts[longest]) + max_tokens > context:
        raise PromptTooLongError(
            longest,
            f"has {len(prompts[longest])} tokens; with max_tokens={max_tokens} that is more "
            f"than the {context} that the model reads: lower max_tokens, or leave the prompt out",
        )


def _prompt_seeds(seed: int | None, count: int) -> list[int | None]:
    """A seed for each prompt, far from the others': engines add 0, 1, 2 ... to it for the n responses."""
    if seed is None:
        return [None] * count
    return [int(np.random.SeedSequence([seed, at]).generate_state(1)[0]) for at in range(count)]


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
