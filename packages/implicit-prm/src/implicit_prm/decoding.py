"""Writing tokens with a model of transformers: every sample has random numbers of its own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from implicit_prm.backends.prompts import cache_name
from implicit_prm.errors import ImplicitPRMError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Written:
    """What one sample got: its tokens, the end token included, and the log-prob of each."""

    token_ids: tuple[int, ...]
    log_probs: npt.NDArray[np.float32]
    ended: bool


def draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token a row by the inverse of the cumulated probabilities: int64 [B].

    logits [B, V]; uniforms float64 [B] in [0, 1). Of the tokens in order of probability those are kept
    before which less than `top_p` lies. Temperature 0 takes the most probable token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    # In float32 the sum over a large vocabulary would be wrong by more than a rare token's probability.
    probabilities = (logits.double() / temperature).softmax(-1)
    if top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        ranked[ranked.cumsum(-1) - ranked >= top_p] = 0
        probabilities = torch.zeros_like(ranked).scatter(-1, order, ranked)
    cumulated = probabilities.cumsum(-1)
    targets = uniforms[:, None] * cumulated[:, -1:]
    found = torch.searchsorted(cumulated, targets, right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def write(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    owners: Sequence[int],
    uniforms: npt.NDArray[np.float64],
    ends: Sequence[int],
    temperature: float,
    top_p: float,
) -> list[Written]:
    """Samples for some prompts in one batch; a prompt goes through the model once for all of its samples.

    prompts   token ids of the prompts, of any lengths
    owners    the prompt of each of the B samples, as its position
    uniforms  float64 [B, T]: the random numbers of each sample, so that T is the most tokens it may have
    ends      tokens that end a sample

    Samples that have ended leave the batch. Log-probs are the model's own: temperature 1, nothing cut.
    """
    device, (samples, most) = model.device, uniforms.shape
    tokens = torch.zeros(samples, most, dtype=torch.long, device=device)
    log_probs = torch.zeros(samples, most, device=device)
    lengths = torch.full((samples,), most, device=device)
    ended = torch.zeros(samples, dtype=torch.bool, device=device)
    luck = torch.from_numpy(uniforms).to(device)
    end_ids = torch.tensor(ends, dtype=torch.long, device=device)

    reader = _Reader(model)
    logits = reader.read(*_padded(prompts, device))
    logits = reader.select(logits, torch.tensor(owners, device=device))
    alive = torch.arange(samples, device=device)
    for step in range(most):
        chosen = draw(logits, luck[alive, step], temperature, top_p)
        tokens[alive, step] = chosen
        log_probs[alive, step] = logits.log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
        over = torch.isin(chosen, end_ids)
        lengths[alive[over]] = step + 1
        ended[alive[over]] = True
        going = (~over).nonzero()[:, 0]
        if not len(going) or step + 1 == most:
            break
        if len(going) < len(alive):
            alive, chosen = alive[going], reader.select(chosen, going)
        logits = reader.read(chosen[:, None], torch.ones_like(chosen[:, None]))
    return [
        Written(tuple(ids[:length]), values[:length], over)
        for ids, values, length, over in zip(
            tokens.tolist(), log_probs.cpu().numpy(), lengths.tolist(), ended.tolist(), strict=True
        )
    ]


class _Reader:
    """A model with the keys and values of what each row of a batch has had so far."""

    def __init__(self, model: Any) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._accepted = inspect.signature(inner.forward).parameters.keys()
        self._name = cache_name(inner)
        self._model = model
        self._cache: Any = None
        self._mask: Any = None

    def read(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Feed tokens [B, T], `mask` [B, T] 0 for padding; the logits that follow, float32 [B, V]."""
        self._mask = mask if self._mask is None else torch.cat([self._mask, mask], 1)
        inputs = {
            "input_ids": tokens,
            "attention_mask": self._mask,
            "position_ids": (self._mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :],
            "use_cache": True,
            "logits_to_keep": 1,
        }
        given = {key: value for key, value in inputs.items() if key in self._accepted}
        if self._name is None:
            raise ImplicitPRMError(
                f"{type(self._model).__name__} takes no cache of keys and values, without which it cannot "
                "write token by token here; sample with the backend vllm or openai"
            )
        output = self._model(**given, **{self._name: self._cache})
        self._cache = output[self._name]
        return output.logits[:, -1].to(tokens.device, torch.float32)

    def select(self, values: Tensor, rows: Tensor) -> Tensor:
        """Go on with these rows of the batch, in any order and number; returns these rows of `values`."""
        self._cache.reorder_cache(rows)  # made for beams; it takes any rows, in layers of all kinds
        self._mask = self._mask[rows]
        return values[rows]


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as int64 [P, T], filled up on the left so that all end together, and which tokens count."""
    longest = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, ids in enumerate(prompts):
        tokens[row, longest - len(ids) :] = torch.tensor(ids, dtype=torch.long)
        mask[row, longest - len(ids) :] = 1
    return tokens.to(device), mask.to(device)
