"""`ImplicitPRM`: a policy, its reference and beta; rewards for anyone's responses from their ratio."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from implicit_prm import pretrained
from implicit_prm.backends.base import LogProbBackend
from implicit_prm.backends.hf import HFBackend, evaluating
from implicit_prm.encoding import Encoded, encode_rows
from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning, RowError, TokenizerMismatchError
from implicit_prm.functional import ImplicitRewards, check_beta, implicit_rewards, step_rewards
from implicit_prm.logprobs import causal_log_probs
from implicit_prm.responses import ScoredResponse
from implicit_prm.steps import SplitBy, token_steps

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BASE", "ImplicitPRM", "ScoredResponse"]

BASE = "base"
"""As reference: the model itself with its adapter (PEFT) disabled, so that one model is in memory."""

Model: TypeAlias = "PreTrainedModel | LogProbBackend"


class ImplicitPRM:
    """An implicit process reward model: r_t = beta log(pi(y_t | x, y_<t) / pi_ref(y_t | x, y_<t)).

    model          a causal language model of transformers (PEFT's wrapper included), or any `LogProbBackend`
    tokenizer      the one that both models read with
    ref_model      the same kinds; None: no reference, r_t = beta log pi; `BASE` ("base"): the model without
                   its adapter. It may lie on another device.
    beta           as in training; rewards of other betas differ by a factor only
    ref_tokenizer  compared with `tokenizer` where it is given

    Rewards of different prompts have offsets of their own (q_0 = 0): compare responses of one prompt.

    Raises `ImplicitPRMError` for beta <= 0, a model that is no causal language model, and `BASE` without an
    adapter; `TokenizerMismatchError` where the reference reads other tokens. Warns
    (`ImplicitPRMWarning`) where the two models compute in different dtypes, whose roundings are rewards too.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        ref_model: Model | Literal["base"] | None = None,
        beta: float = 0.05,
        *,
        ref_tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        check_beta(beta)
        if ref_tokenizer is not None:
            pretrained.check_same_tokenizer(tokenizer, ref_tokenizer)
        self.model: Any = model
        self.ref_model: Any = ref_model
        self.tokenizer = tokenizer
        self.beta = beta
        self._check_models()

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        ref: str | None = None,
        beta: float = 0.05,
        *,
        device: str | torch.device | None = None,
        ref_device: str | torch.device | None = None,
        **options: Any,
    ) -> ImplicitPRM:
        """Load model, reference and tokenizer by name: hub id, folder, GGUF file, or adapter of PEFT.

        `ref` None is no reference; "base" is the model without its adapter. `device` is the accelerator if
        there is one, else the CPU; `ref_device` is `device`. `options` go to both models'
        `AutoModelForCausalLM.from_pretrained`: dtype (that of the files unless given), attn_implementation,
        device_map (then the devices are its) and so on.

        Raises `ImplicitPRMError` for what cannot be loaded, is no causal language model or lacks weights,
        for a device that is not there, and as the class does.
        """
        if device is None:
            device = (torch.accelerator.is_available() and torch.accelerator.current_accelerator()) or "cpu"
        for place in (device, ref_device or device):
            pretrained.check_device(place)
        tokenizer = pretrained.load_tokenizer(model)

        def load(name: str, where: str | torch.device) -> Any:
            loaded = pretrained.load_model(name, **options)
            return loaded if "device_map" in options else loaded.to(where)

        reference: Any = ref
        if ref is not None and ref != BASE:
            # The tokenizers first, before gigabytes are read.
            pretrained.check_same_tokenizer(tokenizer, pretrained.load_tokenizer(ref))
            reference = load(ref, ref_device or device)
        return cls(load(model, device), tokenizer, reference, beta)

    def score(
        self,
        rows: Iterable[Mapping[str, Any]],
        steps: SplitBy = "paragraph",
        batch_size: int = 8,
        add_eos: bool = False,
        *,
        max_length: int | None = None,
        truncate: Literal["error", "right"] = "error",
        render: Literal["original", "official"] = "original",
    ) -> list[ScoredResponse]:
        """Score responses, in their order: one forward pass of each model, whatever the number of steps.

        Rows are as `encode_rows` reads them: prompt and completion (texts, or messages for the chat
        template), or prompt_ids and completion_ids; with an id, if they like. `steps` says where steps end
        (see `split_steps`); a row that has "step_spans", the character spans of its steps, is split at
        these. At most `batch_size` rows go through a model together; a backend other than transformers sees
        to that itself. `max_length` is the models' own unless given.

        Raises `ImplicitPRMError`, naming the row, for what `encode_rows` refuses, steps that do not fit, and
        log-probs that are not finite.
        """
        rows = list(rows)
        encoded = encode_rows(
            rows,
            self.tokenizer,
            add_eos=add_eos,
            max_length=self.max_length if max_length is None else max_length,
            truncate=truncate,
            render=render,
        )
        log_probs = _finite(encoded, "the model", self._completions(self.model, encoded, batch_size))
        ref_log_probs: Sequence[npt.NDArray[np.float32] | None] = [None] * len(encoded)
        if self.ref_model is not None:
            with self._reference() as reference:
                found = self._completions(reference, encoded, batch_size)
            ref_log_probs = _finite(encoded, "the reference", found)
        return [
            self._response(each, ours, theirs, row.get("step_spans", steps))
            for row, each, ours, theirs in zip(rows, encoded, log_probs, ref_log_probs, strict=True)
        ]

    def log_probs(
        self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor | None = None
    ) -> Tensor:
        """The model's log-probs of tokens [B, T], for use in training: float32 [B, T], differentiable.

        out[:, t] = log pi(input_ids[:, t] | input_ids[:, :t]), out[:, 0] = 0; padding on either side is
        where `attention_mask` is 0. With a `completion_mask` only its tokens are computed, the others are 0.
        The model stays in the mode in which it is.
        Raises `ImplicitPRMError` for a backend that is no model of transformers.
        """
        module = _module(self.model, "the model")
        return causal_log_probs(module, input_ids, attention_mask, completion_mask=completion_mask)

    @torch.no_grad()
    def ref_log_probs(
        self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor | None = None
    ) -> Tensor | None:
        """The same of the reference, without a gradient and without dropout; None without a reference.

        It is computed on the reference's device and returned on that of `input_ids`.
        """
        if self.ref_model is None:
            return None
        with self._reference() as reference:
            module = _module(reference, "the reference")
            with evaluating(module):
                device = pretrained.unwrapped(module).device
                there = causal_log_probs(
                    module,
                    input_ids.to(device),
                    attention_mask.to(device),
                    completion_mask=None if completion_mask is None else completion_mask.to(device),
                )
        return there.to(input_ids.device)

    def rewards(self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> ImplicitRewards:
        """Token rewards [B, T], Q-values [B, T] and outcomes [B] of responses given as tokens (section 2.1).

        `completion_mask` [B, T] is 1 on the tokens of the response and 0 on prompt and padding. Gradients
        reach the model; under `torch.no_grad` none are kept.
        """
        return implicit_rewards(
            self.log_probs(input_ids, attention_mask, completion_mask),
            self.ref_log_probs(input_ids, attention_mask, completion_mask),
            completion_mask,
            self.beta,
        )

    @property
    def max_length(self) -> int | None:
        """The most tokens that both models take in one piece; None: no limit is known."""
        limits = (
            getattr(model, "max_length", None)
            if isinstance(model, LogProbBackend)
            else pretrained.max_positions(model)
            for model in (self.model, self.ref_model)
        )
        return min((limit for limit in limits if limit), default=None)

    def _completions(
        self, model: Model, encoded: Sequence[Encoded], batch_size: int
    ) -> list[npt.NDArray[np.float32]]:
        backend: LogProbBackend = (
            model
            if isinstance(model, LogProbBackend)
            else HFBackend(pretrained.unwrapped(model), batch_size=batch_size)
        )
        try:
            return backend.token_log_probs(
                [row.input_ids for row in encoded], [row.completion_mask for row in encoded]
            )
        except RowError as error:
            raise ImplicitPRMError(f"row {encoded[error.place].id!r} {error.told}") from error

    @contextmanager
    def _reference(self) -> Iterator[Any]:
        if self.ref_model == BASE:
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.ref_model

    def _response(
        self,
        row: Encoded,
        log_probs: npt.NDArray[np.float32],
        ref_log_probs: npt.NDArray[np.float32] | None,
        how: SplitBy,
    ) -> ScoredResponse:
        # In float64, so that sums over steps and over the whole agree to the last digit of float32.
        ours = torch.from_numpy(log_probs).double()[None]
        theirs = None if ref_log_probs is None else torch.from_numpy(ref_log_probs).double()[None]
        rewards = implicit_rewards(ours, theirs, torch.ones_like(ours), self.beta)
        try:
            steps, ends = token_steps(row.completion, row.offsets, how, truncated=row.truncated)
        except ImplicitPRMError as error:
            raise ImplicitPRMError(f"row {row.id!r}: {error}") from error
        return ScoredResponse(
            id=row.id,
            token_rewards=rewards.token_rewards[0].float().numpy(),
            q_values=rewards.q_values[0].float().numpy(),
            step_rewards=step_rewards(rewards.token_rewards[0], ends).float().numpy(),
            outcome_reward=float(rewards.outcome),
            steps=steps,
            token_ids=row.completion_ids,
            offsets=row.offsets,
            truncated=row.truncated,
        )

    def _check_models(self) -> None:
        if self.ref_model == BASE and not hasattr(self.model, "disable_adapter"):
            raise ImplicitPRMError(
                f'the reference "{BASE}" is the model without its adapter, and a {type(self.model).__name__} '
                "has none: give a model of PEFT, or another reference"
            )
        dtypes = set()
        for what, model in (("the model", self.model), ("the reference", self.ref_model)):
            if model in (None, BASE) or isinstance(model, LogProbBackend):
                continue
            pretrained.check_causal(model, what)
            inner = pretrained.unwrapped(model)
            dtypes.add(inner.dtype)
            size = len(inner.get_input_embeddings().weight)
            if size < len(self.tokenizer):
                raise TokenizerMismatchError(
                    f"{what} has {size} tokens, the tokenizer {len(self.tokenizer)}: give the model's own"
                )
        if len(dtypes) > 1:
            warnings.warn(
                f"model and reference compute in different dtypes ({', '.join(map(str, dtypes))}); their "
                "different roundings become rewards: load both in one dtype",
                ImplicitPRMWarning,
                stacklevel=3,
            )


def _finite(
    encoded: Sequence[Encoded], who: str, found: list[npt.NDArray[np.float32]]
) -> list[npt.NDArray[np.float32]]:
    for row, values in zip(encoded, found, strict=True):
        if not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values)))
            start, end = row.offsets[at]
            raise ImplicitPRMError(
                f"row {row.id!r}: {who} gives log-prob {values[at]} to token {at} of the response, "
                f"{row.completion[start:end]!r}; load the model in float32 or bfloat16 (float16 overflows), "
                "and look for NaN in its weights"
            )
    return found


def _module(model: Any, who: str) -> Any:
    if isinstance(model, LogProbBackend):
        raise ImplicitPRMError(
            f"{who} is a {type(model).__name__}, which scores finished rows only; for tensors give a model "
            "of transformers"
        )
    return model
