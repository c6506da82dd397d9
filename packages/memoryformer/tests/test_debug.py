"""The first layer where NaN appears is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from memoryformer.debug import check
from memoryformer.errors import MemoryFormerError
from memoryformer.layers import MemoryBlock
from memoryformer.quantization import quantize_tables_


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(MemoryBlock(16, tau=4) for _ in range(3))
        self.zero = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
            if self.zero:
                x = x / 0 * 0
        return x


def test_a_healthy_model_passes_and_keeps_no_hooks():
    model, x = Residual(), torch.randn(3, 16)
    expected = model(x)
    with check(model):
        assert torch.equal(model(x), expected)
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_are_checked_at_once():
    model = Residual()
    with torch.no_grad():
        model.blocks[1].layer2.tables[2, 5, 3] = float("nan")
    message = r"weights 'blocks.1.layer2.tables' hold 1 NaN and 0 infinite of 4,096 numbers.*\[2, 5, 3\]"
    with pytest.raises(MemoryFormerError, match=message):
        check(model)


def test_the_innermost_first_layer_is_named_not_its_parents_or_followers():
    model, x = Residual(), torch.randn(3, 16)
    with torch.no_grad():
        model.blocks[1].norm.weight.fill_(1e38)
        model.blocks[1].norm.bias.fill_(3e38)
    message = r"first layer whose output is not finite is blocks.1.norm \(LayerNorm\): 0 NaN and \d+ infinite"
    with pytest.raises(MemoryFormerError, match=message), check(model):
        model(x)
    assert not any(module._forward_hooks for module in model.modules())


def test_nan_between_layers_is_told_from_nan_of_a_layer():
    model = Residual()
    model.zero = True
    message = (
        r"input of blocks.1.layer1 \(MemoryLayer\) is not finite already.*after blocks.0 \(MemoryBlock\)"
    )
    with pytest.raises(MemoryFormerError, match=message), check(model):
        model(torch.randn(3, 16))


def test_nan_of_the_input_is_told():
    x = torch.randn(2, 16)
    x[1, 4] = float("nan")
    model = Residual()
    message = (
        r"already: 1 NaN and 0 infinite of 32 numbers, the first at \[1, 4\].*after the input of the model"
    )
    with pytest.raises(MemoryFormerError, match=message), check(model):
        model(x)


def test_quantized_models_are_checked_too():
    model = quantize_tables_(Residual()).eval()
    with check(model):
        model(torch.randn(3, 16))
