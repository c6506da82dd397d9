from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import nn

from memoryformer import (
    MemoryBlock,
    MemoryFormerError,
    MemoryLayer,
    QuantizedMemoryLayer,
    quantize_tables_,
)
from memoryformer import functional as MF


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def relative_error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours - exact).norm() / exact.norm())


def test_each_row_is_rounded_to_127_steps_of_its_own() -> None:
    layer = MemoryLayer(8, 3, tau=4)
    with torch.no_grad():
        layer.tables[1, 2] = torch.tensor([1.27, -0.5, 0.014])
        layer.tables[1, 3] = 0.0
        layer.tables[0, 0] = torch.tensor([-254.0, 3.0, 2.9])  # steps of 2: half to even
    quantized = QuantizedMemoryLayer.from_layer(layer)
    assert quantized.tables.dtype == torch.int8
    assert quantized.tables[1, 2].tolist() == [127, -50, 1]
    assert quantized.scales[1, 2].item() == pytest.approx(0.01)
    assert quantized.tables[1, 3].tolist() == [0, 0, 0]
    assert quantized.tables[0, 0].tolist() == [-127, 2, 1]
    assert quantized.scales.dtype == torch.float32
    steps = (layer.tables - quantized.tables * quantized.scales[..., None]).abs() / quantized.scales[
        ..., None
    ]
    assert steps.nan_to_num(0).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("score", ["scaled", "softmax"])
def test_gaussian_tables_lose_less_than_one_per_cent_and_less_than_with_a_scale_a_table(score: str) -> None:
    layer = MemoryLayer(512, 512, tau=8, score=score, bias=False)
    x = torch.randn(64, 512)
    exact = layer(x).detach()
    by_row = relative_error(quantize_tables_(layer)(x), exact)
    scales = layer.tables.detach().abs().amax((1, 2))[:, None] / 127
    tables = (layer.tables.detach() / scales[..., None]).round().to(torch.int8)
    by_table = relative_error(MF.memory_lookup(x.view(64, 64, 8), tables, scales=scales, score=score), exact)
    # Rounding to steps s has an error of deviation s / sqrt(12); the largest of 512 normal numbers is about
    # 3.04 deviations: 3.04 / 127 / sqrt(12) = 0.7 %.
    assert by_row == pytest.approx(3.04 / 127 / math.sqrt(12), rel=0.1)
    assert by_row < 0.01 < by_table


def test_it_is_the_layer_with_the_rounded_tables() -> None:
    layer = MemoryLayer(24, 10, tau=6, score="softmax", temperature=0.5)
    quantized = quantize_tables_(copy.deepcopy(layer))
    with torch.no_grad():
        layer.tables.copy_(quantized.tables * quantized.scales[..., None])
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(quantized(x), layer(x), rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(quantized.hash(x), layer.hash(x), strict=True):
        assert torch.equal(ours, theirs)


def test_a_model_is_changed_in_place_with_a_fourth_of_the_bytes() -> None:
    model = nn.Sequential(MemoryBlock(64, tau=8), nn.Linear(64, 8)).eval()
    before = sum(p.nbytes for p in model[0].parameters())
    x = torch.randn(5, 64)
    first = model[0].layer1(x)
    assert quantize_tables_(model) is model
    assert isinstance(model[0].layer1, QuantizedMemoryLayer)
    assert isinstance(model[0].layer2, QuantizedMemoryLayer)
    after = sum(b.nbytes for b in model[0].buffers()) + sum(p.nbytes for p in model[0].parameters())
    assert before / after == pytest.approx(4, rel=0.06)  # a scale a row is 4 bytes to 64 or 80
    torch.testing.assert_close(
        model[0].layer1(x), first, rtol=0, atol=0.02 * float(first.detach().abs().max())
    )


def test_a_layer_that_stands_in_two_places_stays_one() -> None:
    layer = MemoryLayer(16, 16, 4)
    model = nn.ModuleDict({"first": layer, "second": layer})
    quantize_tables_(model)
    assert isinstance(model["first"], QuantizedMemoryLayer)
    assert model["first"] is model["second"]


def test_bfloat16_tables_halve_the_bytes_and_still_learn() -> None:
    layer = MemoryLayer(64, 32, tau=8)
    x = torch.randn(16, 64)
    exact = layer(x).detach()
    quantize_tables_(layer, "bfloat16")
    assert layer.tables.dtype == torch.bfloat16
    assert layer.bias is not None
    assert layer.bias.dtype == torch.float32
    assert layer(x).dtype == torch.float32
    assert relative_error(layer(x).detach(), exact) < 0.003  # eps / sqrt(12) with eps = 2^-8 at most
    layer(x).sum().backward()
    assert layer.tables.grad is not None
    assert layer.tables.grad.dtype == torch.bfloat16


def test_state_goes_round_also_by_way_of_meta() -> None:
    model = quantize_tables_(nn.Sequential(MemoryLayer(16, 16, 4)))
    shell = quantize_tables_(nn.Sequential(MemoryLayer(16, 16, 4, device="meta")))
    assert shell[0].tables.is_meta
    shell.load_state_dict(model.state_dict(), assign=True)
    x = torch.randn(3, 16)
    assert torch.equal(shell(x), model(x))
    assert set(model.state_dict()) == {"0.tables", "0.scales", "0.bias"}
    assert not list(model.parameters())


def test_a_cast_of_the_model_leaves_scales_and_tables_as_they_are() -> None:
    model = quantize_tables_(nn.Sequential(MemoryLayer(16, 16, 4)))
    scales = model[0].scales.clone()
    model.to(torch.bfloat16)
    assert model[0].tables.dtype == torch.int8
    assert torch.equal(model[0].scales, scales)
    assert model[0].bias.dtype == torch.bfloat16
    assert model(torch.randn(3, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_quantized_tables_are_for_inference() -> None:
    model = quantize_tables_(nn.Sequential(MemoryLayer(16, 16, 4)))
    x = torch.randn(3, 16, requires_grad=True)
    y = model(x)  # fresh from quantize_tables_, the layer is in eval mode
    with pytest.raises(MemoryFormerError, match="quantized tables are for inference: no gradient passes"):
        y.sum().backward()
    model.train()
    with pytest.raises(
        MemoryFormerError, match=re.escape("quantized tables are for inference: call model.eval()")
    ):
        model(x)
    model.eval()
    assert torch.equal(model(x), y)


def test_tables_that_are_not_finite_are_refused_by_the_name_of_their_layer() -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([MemoryLayer(16, 16, 4), MemoryLayer(16, 16, 4)])})
    with torch.no_grad():
        model["blocks"][1].tables[2, 3, 4] = math.nan
    with pytest.raises(MemoryFormerError, match=r"blocks\.1: the tables hold NaN or infinity"):
        quantize_tables_(model)


def test_what_cannot_be_quantized_is_said() -> None:
    with pytest.raises(MemoryFormerError, match="unknown dtype 'int4'; tables can be 'int8' or 'bfloat16'"):
        quantize_tables_(MemoryBlock(16, 4), "int4")
    with pytest.raises(MemoryFormerError, match="Linear has no MemoryLayer"):
        quantize_tables_(nn.Linear(4, 4))
    with pytest.raises(MemoryFormerError, match="has no MemoryLayer whose tables could be quantized"):
        quantize_tables_(quantize_tables_(MemoryBlock(16, 4)))
