"""The responses of a step: as groups of one prompt while they are drawn, as padded tensors to compute on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PromptGroup:
    """The K responses to one prompt, with their verdicts.

    prompt      number of the prompt in the training data
    prompt_ids  its tokens
    ids         tokens of each response
    log_probs   float32 [T] each, under the policy that wrote it
    truncated   whether each was cut off
    outcomes    float64 [K] in [0, 1]; NaN where the verifier gave no verdict
    """

    prompt: int
    prompt_ids: tuple[int, ...]
    ids: list[tuple[int, ...]]
    log_probs: list[npt.NDArray[np.float32]]
    truncated: list[bool]
    outcomes: npt.NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """Mean outcome; NaN without a verdict."""
        known = self.outcomes[~np.isnan(self.outcomes)]
        return float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """B responses as tensors on the CPU: prompts padded on the left to P tokens, responses on the right to T.

    input_ids       int64 [B, P + T]
    attention_mask  bool [B, P + T], False at padding
    mask            bool [B, T], True on the response's tokens
    outcomes        float32 [B], the verifier's scores
    groups          int64 [B], which responses are of one prompt
    log_probs       float32 [B, T], of the policy that wrote them
    ref_log_probs   float32 [B, T], of the PRM's reference; None: not computed yet
    """

    input_ids: Tensor
    attention_mask: Tensor
    mask: Tensor
    outcomes: Tensor
    groups: Tensor
    log_probs: Tensor
    ref_log_probs: Tensor | None = None

    @classmethod
    def from_groups(cls, groups: Sequence[PromptGroup]) -> Responses:
        """Those responses of the groups that have a verdict, group after group; groups are numbered anew."""
        rows = [
            (number, group, at)
            for number, group in enumerate(groups)
            for at in np.flatnonzero(~np.isnan(group.outcomes)).tolist()
        ]
        before = max((len(group.prompt_ids) for _, group, _ in rows), default=0)
        after = max((len(group.ids[at]) for _, group, at in rows), default=0)
        ids = torch.zeros(len(rows), before + after, dtype=torch.long)
        real = torch.zeros(ids.shape, dtype=torch.bool)
        log_probs = torch.zeros(len(rows), after)
        for row, (_, group, at) in enumerate(rows):
            tokens = (*group.prompt_ids, *group.ids[at])
            start = before - len(group.prompt_ids)
            ids[row, start : start + len(tokens)] = torch.tensor(tokens)
            real[row, start : start + len(tokens)] = True
            log_probs[row, : len(group.ids[at])] = torch.from_numpy(group.log_probs[at])
        return cls(
            input_ids=ids,
            attention_mask=real,
            mask=real[:, before:].clone(),
            outcomes=torch.tensor([group.outcomes[at] for _, group, at in rows], dtype=torch.float32),
            groups=torch.tensor([number for number, _, _ in rows], dtype=torch.long),
            log_probs=log_probs,
        )

    @classmethod
    def concat(cls, parts: Sequence[Responses]) -> Responses:
        """The responses of all parts in one; groups of different parts stay apart. One part at least."""
        before = max(part.prompt_length for part in parts)
        after = max(part.mask.shape[1] for part in parts)
        padded, first_group = [], 0
        for part in parts:
            wider = part._padded(before - part.prompt_length, after - part.mask.shape[1])
            _, numbers = part.groups.unique(return_inverse=True)
            padded.append(replace(wider, groups=numbers + first_group))
            first_group += int(numbers.max()) + 1 if len(numbers) else 0
        joined: Any = {
            each.name: _joined([getattr(part, each.name) for part in padded]) for each in fields(cls)
        }
        return cls(**joined)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def prompt_length(self) -> int:
        """P, the width of the prompts."""
        return self.input_ids.shape[1] - self.mask.shape[1]

    @property
    def completion_mask(self) -> Tensor:
        """The mask over prompt and response: bool [B, P + T]."""
        return F.pad(self.mask, (self.prompt_length, 0))

    def select(self, rows: Tensor) -> Responses:
        """These rows (int64 [n]), without the columns in which they have padding only."""
        real, mask = self.attention_mask[rows], self.mask[rows]
        prompt, width = self.prompt_length, _used(mask)
        start = prompt - _used(real[:, :prompt].flip(1))
        ref = self.ref_log_probs
        return Responses(
            input_ids=self.input_ids[rows, start : prompt + width],
            attention_mask=real[:, start : prompt + width],
            mask=mask[:, :width],
            outcomes=self.outcomes[rows],
            groups=self.groups[rows],
            log_probs=self.log_probs[rows, :width],
            ref_log_probs=None if ref is None else ref[rows, :width],
        )

    def to(self, device: torch.device) -> Responses:
        """The same on another device."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        moved: Any = {name: None if x is None else x.to(device) for name, x in every.items()}
        return Responses(**moved)

    def lengths(self) -> Tensor:
        """Tokens of prompt and response: int64 [B]."""
        return self.attention_mask.sum(1)

    def _padded(self, before: int, after: int) -> Responses:
        whole, response = (before, after), (0, after)
        ref = self.ref_log_probs
        return replace(
            self,
            input_ids=F.pad(self.input_ids, whole),
            attention_mask=F.pad(self.attention_mask, whole),
            mask=F.pad(self.mask, response),
            log_probs=F.pad(self.log_probs, response),
            ref_log_probs=None if ref is None else F.pad(ref, response),
        )


def _used(mask: Tensor) -> int:
    """The number of columns up to the last one with a True."""
    columns = mask.any(0).nonzero()
    return int(columns[-1]) + 1 if len(columns) else 0


def _joined(tensors: list[Tensor | None]) -> Tensor | None:
    known = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(known) if len(known) == len(tensors) else None
