import math

import pytest
import torch
from torch import nn

from lpa import LowRankLinear, LPAError
from lpa.init import initialize_factors

N_IN, N_OUT, RANK, TOKENS = 512, 384, 128, 2048


def output_std(layer: nn.Module) -> float:
    """The mean over several starts of the standard deviation of y for x of unit variance."""
    with torch.no_grad():
        return float(layer(torch.randn(TOKENS, N_IN)).std())


def test_torchs_dense_layer_starts_at_577_thousandths():
    assert output_std(nn.Linear(N_IN, N_OUT, bias=False)) == pytest.approx(1 / math.sqrt(3), rel=0.03)


def test_torch_starts_the_product_at_a_third():
    # Var = n_in * (1 / 3 n_in) * r * (1 / 3 r) = 1 / 9
    assert output_std(LowRankLinear(N_IN, N_OUT, RANK)) == pytest.approx(1 / 3, rel=0.03)


def test_torch_is_exactly_what_two_linear_layers_do():
    torch.manual_seed(5)
    layer = LowRankLinear(N_IN, N_OUT, RANK)
    bounds = [layer.down.weight.abs().max(), layer.up.weight.abs().max()]
    for bound, fan_in in zip(bounds, (N_IN, RANK), strict=True):
        assert 0.98 / math.sqrt(fan_in) < bound <= 1 / math.sqrt(fan_in)


@pytest.mark.parametrize("std", [None, 0.05])
def test_matched_starts_at_the_dense_layers_own_scale(std):
    layer = LowRankLinear(N_IN, N_OUT, RANK, init="matched")
    layer.reset_parameters("matched", std=std)
    dense_std = std or 1 / math.sqrt(3 * N_IN)
    assert output_std(layer) == pytest.approx(dense_std * math.sqrt(N_IN), rel=0.03)
    assert float(layer.effective_weight().detach().std()) == pytest.approx(dense_std, rel=0.03)
    assert float(layer.down.weight.norm()) == pytest.approx(float(layer.up.weight.norm()), rel=0.03)


def test_hf_starts_several_times_too_small():
    layer = LowRankLinear(N_IN, N_OUT, RANK, init="hf")
    assert float(layer.down.weight.std()) == pytest.approx(0.02, rel=0.03)
    # The composed entries: 0.02^2 sqrt(128) = 0.0045, against 0.02 of HF's dense layer.
    assert float(layer.effective_weight().detach().std()) == pytest.approx(0.0045, rel=0.03)


def test_spectral_is_the_truncated_svd_of_the_dense_start():
    dense = torch.randn(20, 30)
    down, up = torch.empty(6, 30), torch.empty(20, 6)
    initialize_factors(down, up, "spectral", dense=dense)
    tail = torch.linalg.svdvals(dense)[6:]
    assert float((dense - up @ down).norm()) == pytest.approx(float(tail.norm()), rel=1e-5)
    torch.testing.assert_close(down @ down.T, up.T @ up, rtol=1e-4, atol=1e-4)


def test_spectral_without_a_dense_matrix_is_refused():
    with pytest.raises(ValueError, match="needs the dense matrix"):
        initialize_factors(torch.empty(2, 4), torch.empty(4, 2), "spectral")


def test_an_unknown_init_is_named():
    with pytest.raises(LPAError, match="init is 'xavier'; it may be 'torch'"):
        LowRankLinear(4, 4, 2).reset_parameters("xavier")


@pytest.mark.parametrize("init", ["torch", "matched", "hf"])
def test_the_same_generator_gives_the_same_start(init):
    layers = [LowRankLinear(32, 24, 8, bias_up=True) for _ in range(2)]
    for layer in layers:
        layer.reset_parameters(init, generator=torch.Generator().manual_seed(3))
    for first, second in zip(*(layer.parameters() for layer in layers), strict=True):
        assert first.equal(second)


def test_biases_start_as_torchs_do():
    layer = LowRankLinear(256, 4096, 64, bias_down=True, bias_up=True)
    assert layer.down.bias.abs().max() <= 1 / 16
    assert float(layer.up.bias.std()) == pytest.approx(1 / (8 * math.sqrt(3)), rel=0.05)
