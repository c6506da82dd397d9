"""A data set whose batches are cut out of arrays: what `ImplicitPRMTrainer` feeds to its losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from implicit_prm.token_store import Integers, TokenStore

Batch: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class StepLabels:
    """Labels of the steps of n responses: inclusive token index of each step's end, and 1 or -1."""

    ends: tuple[Integers, ...]
    labels: tuple[Integers, ...]


class RewardDataset(Dataset[dict[str, Any]]):
    """m examples of R sequences each, out of a store of n sequences.

    store        the tokens
    examples     [m, R] which sequences make an example: a response; a right and a wrong one; or a response
                 and its prompt with another prompt's response (for the KL term of KTO)
    labels       [n] in [0, 1]
    groups       [n] which prompt each sequence answers
    ref          [number of completion tokens] the reference's log-probs, where they were computed before
    step_labels  for the step loss

    `batch(indices)` is a batch; torch's `DataLoader` calls it through `__getitems__` and needs no collator
    but the identity.
    """

    def __init__(
        self,
        store: TokenStore,
        examples: Integers,
        labels: npt.NDArray[np.float32],
        groups: Integers,
        step_labels: StepLabels | None = None,
    ) -> None:
        self.store = store
        self.examples = examples
        self.labels = labels
        self.groups = groups
        self.step_labels = step_labels
        self.ref: npt.NDArray[np.float32] | None = None
        # Where a sequence's log-probs begin in `ref`, counted from the first token of its prompt.
        ends = np.cumsum(store.completion_lengths)
        self._ref_origins = ends - store.lengths

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example, as samplers that group by length look at it: the tokens of its longest sequence."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        sequences = self.examples[index]
        longest = sequences[self.store.lengths[sequences].argmax()]
        return {"index": index, "input_ids": self.store.sequence(int(longest))}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self.batch(indices)

    def pad(self, rows: Integers) -> Batch:
        """Sequences `rows` of the store, padded on the right to the longest, T.

        input_ids, attention_mask [B, T] int64; completion_mask [B, T] bool.
        """
        store = self.store
        starts, lengths = store.starts[rows, None], store.lengths[rows, None]
        at = np.arange(lengths.max())
        inside = at < lengths
        # Padding repeats the first token: any token will do, as the mask hides it.
        tokens = store.tokens[np.where(inside, starts + at, starts)]
        return {
            "input_ids": torch.from_numpy(tokens.astype(np.int64)),
            "attention_mask": torch.from_numpy(inside.astype(np.int64)),
            "completion_mask": torch.from_numpy(inside & (at >= store.prompt_lengths[rows, None])),
        }

    def batch(self, indices: Sequence[int]) -> Batch:
        """B examples: first the sequences that come first in each of them, then those that come second.

        What `pad` gives, [R * B, T]; label [R * B] float32; group and sequence (its place in the store)
        [R * B] int64; ref_log_probs [R * B, T] float32 where they are known; with step labels step_index
        [B, T] int64, the step of a token (0 outside the completion), and step_label [B, S] int64 (0 where a
        response has fewer than S steps).
        """
        rows = self.examples[np.asarray(indices)].T.ravel()
        batch = self.pad(rows)
        completion = batch["completion_mask"].numpy()
        batch["label"] = torch.from_numpy(self.labels[rows])
        batch["group"] = torch.from_numpy(self.groups[rows])
        batch["sequence"] = torch.from_numpy(rows)
        if self.ref is not None:
            at = self._ref_origins[rows, None] + np.arange(completion.shape[1])
            known = self.ref[np.where(completion, at, 0)]
            batch["ref_log_probs"] = torch.from_numpy(np.where(completion, known, np.float32(0)))
        if self.step_labels is not None:
            batch |= self._steps(self.step_labels, rows, completion)
        return batch

    def _steps(self, steps: StepLabels, rows: Integers, completion: npt.NDArray[np.bool_]) -> Batch:
        index = np.zeros(completion.shape, np.int64)
        label = np.zeros((len(rows), max(len(steps.labels[row]) for row in rows)), np.int64)
        for place, row in enumerate(rows):
            count = int(self.store.completion_lengths[row])
            index[place, completion[place]] = np.searchsorted(steps.ends[row], np.arange(count))
            label[place, : len(steps.labels[row])] = steps.labels[row]
        return {"step_index": torch.from_numpy(index), "step_label": torch.from_numpy(label)}
