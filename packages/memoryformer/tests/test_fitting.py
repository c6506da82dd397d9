"""`fit_tables` against dense least squares and the closed forms of section 2.6."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memoryformer import MemoryLayer
from memoryformer.convert import fit_tables, fitting, gaussian_fit, replace_linear
from memoryformer.errors import MemoryFormerError, MemoryFormerWarning

# Section 2.6 prints these from a Monte Carlo of 4e5, whose noise made its row for tau 1 0.003 too high
# (scipy's quad: 0.7861, 0.7426, 0.9935).
EXPLAINED = {
    1: (0.637, 0.786, 0.743, 0.993),
    4: (0.637, 0.708, 0.713, 0.655),
    8: (0.637, 0.617, 0.676, 0.537),
    10: (0.637, 0.575, 0.658, 0.494),
}
SCORES = (("softmax", 1e-9), ("softmax", 1.0), ("softmax", 4.0), ("scaled", 1.0))  # the first is w = 1


@pytest.mark.parametrize("tau", EXPLAINED)
def test_explained_variance_is_the_table_of_section_2_6(tau: int) -> None:
    for (score, temperature), expected in zip(SCORES, EXPLAINED[tau], strict=True):
        assert gaussian_fit(tau, score, temperature).explained == pytest.approx(expected, abs=1.5e-3)


def test_weights_of_one_explain_two_over_pi() -> None:
    """E|z|² = 2/π and E[1] = 1: the sign alone."""
    fit = gaussian_fit(5, "softmax", 1e-9)
    assert fit.explained == pytest.approx(2 / np.pi, abs=1e-6)
    assert fit.alpha == pytest.approx(np.sqrt(2 / np.pi), abs=1e-6)


@pytest.mark.parametrize(("score", "temperature"), SCORES)
def test_the_fit_on_gaussian_input_finds_the_closed_form(score: str, temperature: float) -> None:
    torch.manual_seed(0)
    tau, weight = 3, torch.randn(6, 2, dtype=torch.float64)
    x = torch.randn(100_000, 6, dtype=torch.float64)
    layer = MemoryLayer(6, 2, tau, score=score, temperature=temperature, dtype=torch.float64)
    found = fit_tables(layer, x, x @ weight)
    best = gaussian_fit(tau, score, temperature)
    assert found.after**2 == pytest.approx(1 - best.explained, abs=0.006)
    signs = torch.tensor([[1 if code >> i & 1 else -1 for i in (2, 1, 0)] for code in range(8)])
    expected = best.alpha * torch.stack([signs.double() @ weight[:3], signs.double() @ weight[3:]])
    # each row is a mean over 12,500 tokens; a constant may go from one table to the other
    difference = (layer.tables - expected).detach() / best.alpha
    assert (difference - difference.mean(1, keepdim=True)).abs().max() < 0.06


def direct(layer: MemoryLayer, x: Tensor, y: Tensor, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """The same problem by numpy on the dense matrix: ridge as extra rows, the bias as a column without."""
    codes, weights = layer.hash(x)
    chunks, rows = layer.tables.shape[:2]
    dense = np.zeros((len(x), chunks * rows + 1))
    for n in range(len(x)):
        for k in range(chunks):
            dense[n, k * rows + codes[n, k]] = weights[n, k]
    start = np.zeros((chunks * rows + 1, y.shape[1]))
    start[:-1] = layer.tables.detach().flatten(0, 1).numpy()
    looked_up, target = dense @ start, y.numpy()
    if layer.bias is not None:
        dense[:, -1] = 1
        looked_up, target = looked_up - looked_up.mean(0), target - target.mean(0)
    start *= (looked_up * target).sum() / max((looked_up**2).sum(), 1e-300)
    pull = np.sqrt(ridge * chunks * weights.square().mean().item()) * np.eye(chunks * rows + 1)
    pull[-1] = 0
    wanted = np.vstack([y.numpy(), pull @ start])
    solution = np.linalg.lstsq(np.vstack([dense, pull]), wanted, rcond=1e-12)[0]
    return solution[:-1].reshape(chunks, rows, -1), solution[-1]


@given(
    tokens=st.integers(1, 40),
    chunks=st.integers(1, 3),
    tau=st.integers(1, 4),
    out=st.integers(1, 5),
    ridge=st.sampled_from([0.1, 1.0, 10.0]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_the_solution_is_that_of_dense_least_squares(
    tokens: int, chunks: int, tau: int, out: int, ridge: float, bias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, chunks * tau, generator=generator, dtype=torch.float64)
    y = 3 + torch.randn(tokens, out, generator=generator, dtype=torch.float64)
    layer = MemoryLayer(chunks * tau, out, tau, bias=bias, dtype=torch.float64)
    tables, constant = direct(layer, x, y, ridge)
    fit_tables(layer, x, y, ridge=ridge)
    np.testing.assert_allclose(layer.tables.detach(), tables, atol=2e-4)
    if bias:
        np.testing.assert_allclose(layer.bias.detach(), constant, atol=2e-4)


def test_a_memory_layer_is_found_again_from_its_own_output() -> None:
    torch.manual_seed(0)
    teacher = MemoryLayer(12, 5, tau=4, dtype=torch.float64)
    student = MemoryLayer(12, 5, tau=4, dtype=torch.float64)
    x = torch.randn(4, 500, 12, dtype=torch.float64)
    found = fit_tables(student, x, teacher(x), ridge=0.0)
    assert found.before > 0.5
    assert found.after < 1e-4
    fresh = torch.randn(300, 12, dtype=torch.float64)
    torch.testing.assert_close(student(fresh), teacher(fresh), rtol=0, atol=1e-4)


def test_rows_that_nobody_hit_are_the_tables_before_times_one_factor() -> None:
    torch.manual_seed(0)
    layer = MemoryLayer(16, 3, tau=8)
    x, y = torch.randn(20, 16), torch.randn(20, 3)
    start, error = layer.tables.detach().clone(), ((layer(x) - y).norm() / y.norm()).item()
    found = fit_tables(layer, x, y)
    codes, _ = layer.hash(x)
    hit = torch.zeros(2, 256, dtype=torch.bool)
    hit[torch.arange(2), codes] = True
    factors = (layer.tables / start)[~hit]
    torch.testing.assert_close(factors, factors[0, 0].expand_as(factors), rtol=1e-4, atol=1e-4)
    assert (layer.tables / start)[hit].std() > 1
    assert found.before == pytest.approx(error)
    assert found.after == pytest.approx(((layer(x) - y).norm() / y.norm()).item())


def test_zero_tables_are_pulled_to_zero() -> None:
    layer = MemoryLayer(16, 3, tau=8)
    nn.init.zeros_(layer.tables)
    fit_tables(layer, torch.randn(20, 16), torch.randn(20, 3))
    assert (layer.tables == 0).all(dim=-1).sum() >= 2 * 256 - 40


def test_few_tokens_improve_on_the_tables_of_the_linear_layer() -> None:
    """2000 tokens for 8 · 256 rows: from nothing they teach little, from the layer's weights they help."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 16)
    x, fresh = torch.randn(2000, 64) * torch.linspace(0.3, 2, 64), torch.randn(4000, 64)
    fresh = fresh * torch.linspace(0.3, 2, 64)
    model = replace_linear(nn.Sequential(copy.deepcopy(linear)), "0", 8)
    layers = {"fitted": model[0], "start": copy.deepcopy(model[0]), "from nothing": MemoryLayer(64, 16, 8)}
    with torch.no_grad():
        fit_tables(layers["fitted"], x, linear(x))
        fit_tables(layers["from nothing"], x, linear(x))
        y = linear(fresh)
        errors = {name: ((layer(fresh) - y).norm() / y.norm()).item() for name, layer in layers.items()}
    assert errors["fitted"] < errors["start"] - 0.02
    assert errors["fitted"] < errors["from nothing"] - 0.1


def test_a_larger_ridge_gives_smaller_tables() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(200, 8), torch.randn(200, 3)
    sizes = []
    for ridge in (0.1, 1.0, 10.0):
        layer = MemoryLayer(8, 3, tau=4)
        fit_tables(layer, x, y, ridge=ridge)
        sizes.append(layer.tables.norm().item())
    assert sizes[0] > sizes[1] > sizes[2]


def test_blocks_of_columns_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(100, 8), torch.randn(100, 5)
    layers = [MemoryLayer(8, 5, tau=4) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    fit_tables(layers[0], x, y)
    monkeypatch.setattr(fitting, "BLOCK_BYTES", 8 * (100 + 32) * 2)  # two columns
    fit_tables(layers[1], x, y)
    torch.testing.assert_close(layers[1].tables, layers[0].tables, rtol=1e-3, atol=1e-4)


def test_half_precision_tables_are_fitted_in_float64() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(16, 4)
    x = torch.randn(4000, 16)
    found = fit_tables(MemoryLayer(16, 4, tau=8, dtype=torch.bfloat16), x, linear(x).detach())
    assert found.after < 0.75


def test_a_solver_that_is_not_done_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(fitting, "MAX_ITERATIONS", 1)
    with pytest.warns(MemoryFormerWarning, match="stopped after 1 steps"):
        fit_tables(MemoryLayer(8, 3, tau=4), torch.randn(99, 8), torch.randn(99, 3))


LAYER = MemoryLayer(8, 3, tau=4)


@pytest.mark.parametrize(
    ("layer", "x", "y", "ridge", "message"),
    [
        (LAYER, torch.ones(5, 7), torch.ones(5, 3), 1.0, r"\[5, 7\] and \[5, 3\]; expected \[..., 8\]"),
        (LAYER, torch.ones(5, 8), torch.ones(5, 4), 1.0, r"expected \[..., 8\] and \[..., 3\]"),
        (LAYER, torch.ones(5, 8), torch.ones(6, 3), 1.0, "same leading sizes"),
        (LAYER, torch.ones(0, 8), torch.ones(0, 3), 1.0, "nothing to fit"),
        (LAYER, torch.full((5, 8), torch.nan), torch.ones(5, 3), 1.0, "x has values that are not finite"),
        (LAYER, torch.ones(5, 8), torch.full((5, 3), torch.inf), 1.0, "y has values that are not finite"),
        (LAYER, torch.ones(5, 8), torch.zeros(5, 3), 1.0, "no relative error"),
        (LAYER, torch.ones(5, 8), torch.ones(5, 3), -1.0, "ridge is -1.0"),
        (nn.Linear(8, 3), torch.ones(5, 8), torch.ones(5, 3), 1.0, "Linear is no MemoryLayer"),
    ],
)
def test_data_that_cannot_be_fitted_are_refused(
    layer: nn.Module, x: Tensor, y: Tensor, ridge: float, message: str
) -> None:
    before = [parameter.clone() for parameter in layer.parameters()]
    with pytest.raises(MemoryFormerError, match=message):
        fit_tables(layer, x, y, ridge=ridge)
    assert all(map(torch.equal, before, layer.parameters()))


@pytest.mark.parametrize("tolerance", [0.0, 1.0, math.nan])
def test_an_impossible_tolerance_is_refused(tolerance: float) -> None:
    with pytest.raises(MemoryFormerError, match=f"tolerance is {tolerance}"):
        fit_tables(LAYER, torch.randn(5, 8), torch.randn(5, 3), tolerance=tolerance)


def test_a_loose_tolerance_stops_early() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(200, 8), torch.randn(200, 3)
    start = MemoryLayer(8, 3, tau=4)
    errors = [fit_tables(copy.deepcopy(start), x, y, tolerance=bound).after for bound in (0.3, 1e-3, 1e-6)]
    assert errors[0] > errors[1] + 1e-3
    assert errors[1] == pytest.approx(errors[2], rel=1e-3)
