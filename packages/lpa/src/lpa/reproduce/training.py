"""The hook by which `lmlab.train` trains a low-rank model."""

from typing import Any

from transformers import PreTrainedModel

from lpa import LPAConfig, apply_lpa


def modify(model: PreTrainedModel, **options: Any) -> PreTrainedModel:
    """Apply LPA with `options` as its config, for `lmlab.train --apply lpa.reproduce.training:modify`."""
    return apply_lpa(model, LPAConfig.from_dict(options))
