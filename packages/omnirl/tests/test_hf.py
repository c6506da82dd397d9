"""transformers loads what it saved, and what it loaded is the same model."""

from pathlib import Path

import pytest
import torch

from omnirl.model.config import OmniRLConfig
from omnirl.model.modeling import OmniRL

transformers = pytest.importorskip("transformers")


@pytest.mark.slow  # importing transformers' models takes most of it
def test_automodel_brings_back_the_model_that_was_wrapped(tmp_path: Path) -> None:
    from omnirl.hf import OmniRLHubModel, wrap

    model = OmniRL(OmniRLConfig(5, 3, 16, 2, 2, layout="star")).eval()
    wrap(model).save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, OmniRLHubModel)
    assert again.omnirl.config == model.config
    steps = [torch.randint(n, (2, 7)) for n in (5, 8, 4)] + [torch.randn(2, 7)]
    assert torch.equal(again.eval()(*steps).policy_logits, model(*steps).policy_logits)
