"""Muon for the matrices of the trunk, AdamW for all else (section 6.2)."""

from __future__ import annotations

import torch
from torch import nn

from omnirl.model.modeling import OmniRL
from omnirl.training.config import TrainConfig


def make_optimizers(model: OmniRL, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW at `lr` (embeddings, norms, biases, heads), and Muon at `muon_lr` where that is not 0.

    Matrices decay by `weight_decay`, tables, norms and biases do not.
    """
    matrices, others = split_parameters(model)
    kept = [weight for name, weight in others if _decays(name, weight)]
    plain = [weight for name, weight in others if not _decays(name, weight)]
    trunk = [weight for _, weight in matrices]
    groups = [
        {"params": kept if config.muon_lr else kept + trunk, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, foreach=True)]
    if config.muon_lr:
        optimizers.append(
            torch.optim.Muon(
                trunk,
                lr=config.muon_lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                adjust_lr_fn="original",
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every learning rate to `factor` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]


Named = list[tuple[str, nn.Parameter]]


def split_parameters(model: OmniRL) -> tuple[Named, Named]:
    """The trunk's matrices (2-D weights), and all other parameters."""
    named = list(model.named_parameters())
    matrices = [(name, weight) for name, weight in named if name.startswith("trunk.") and weight.dim() == 2]
    taken = {name for name, _ in matrices}
    return matrices, [(name, weight) for name, weight in named if name not in taken]


def _decays(name: str, weight: nn.Parameter) -> bool:
    return weight.dim() == 2 and not name.startswith("embedding.")
