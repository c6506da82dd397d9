"""Coefficients are drawn, and must be the same on every rank: looked at once, when training begins."""

from __future__ import annotations

from typing import Any

import torch.distributed
from transformers import PreTrainedModel

from fope.coefficients import check_ranks


def check_ranks_at_first_step(model: PreTrainedModel) -> PreTrainedModel:
    """Have the first forward pass in training compare the coefficients of all ranks; returns the model.

    For a model that every rank of the default process group trains: all of them must take the step, which
    raises `FopeError` on each if coefficients differ. Without torch.distributed nothing is compared.
    """
    model.register_forward_pre_hook(_check_once)
    return model


def _check_once(model: Any, args: tuple[Any, ...]) -> None:
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if together and model.training and not getattr(model, "fope_ranks_checked", False):
        check_ranks(model)
        model.fope_ranks_checked = True
