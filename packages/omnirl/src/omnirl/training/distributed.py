"""Training on several processes by accelerate: each reads its own sequences, the sums go over all of them.

    torchrun --nproc-per-node 8 -m omnirl train paper_large.toml
    accelerate launch --num_processes 8 -m omnirl train paper_large.toml

Every process computes the gradient of its own rows, divided by the weights of all rows (section 2.7), so one
sum over the processes gives the gradient of the whole batch. That is one message an update, however many
segments there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from omnirl.errors import MissingExtraError


class Processes:
    """This process's place among all, and sums over them; without a launcher, one alone."""

    def __init__(self, device: str = "cpu") -> None:
        self.accelerator: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                from accelerate import Accelerator
            except ImportError as error:
                raise MissingExtraError(
                    "training on several processes needs accelerate: pip install 'omnirl-icrl[scale]'"
                ) from error
            self.accelerator = Accelerator(cpu=device == "cpu")

    @property
    def count(self) -> int:
        """How many there are."""
        return self.accelerator.num_processes if self.accelerator else 1

    @property
    def rank(self) -> int:
        """Which one this is; 0 writes the files."""
        return self.accelerator.process_index if self.accelerator else 0

    def device(self, wanted: str) -> torch.device:
        """The device of this process."""
        return self.accelerator.device if self.accelerator and wanted != "cpu" else torch.device(wanted)

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor's sum over all processes."""
        if not self.accelerator:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        flat = self.accelerator.reduce(flat, reduction="sum")
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def wait(self) -> None:
        """Until all are here."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()
