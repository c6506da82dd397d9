"""Numbers worked out by hand, from the paper's figures and the equations of section 2."""

from __future__ import annotations

import math

import pytest
import torch

from memoryformer import functional as MF

FIGURE_3 = torch.tensor([[-1.1, -2.7, 0.6], [3.4, -1.9, -2.3], [3.1, 0.6, 0.1]])


def test_figure_2_and_3_count_the_first_number_as_the_highest_bit() -> None:
    assert MF.hash_codes(FIGURE_3).tolist() == [0b001, 0b100, 0b111]
    assert MF.hash_codes(torch.tensor([[0.4, -1.3], [-0.2, 2.2], [1.0, -0.1]])).tolist() == [2, 1, 2]


def test_weights_of_figure_3() -> None:
    # p = Π 1 / (1 + exp(-2|z|)): for the first chunk 0.900250 · 0.995504 · 0.768525; times 1.1 + 2.7 + 0.6.
    softmax = MF.hash_weights(FIGURE_3, score="softmax")
    assert softmax.tolist() == pytest.approx([0.688753, 0.967307, 0.421705], abs=1e-6)
    assert MF.hash_weights(FIGURE_3).tolist() == pytest.approx([3.030514, 7.351536, 1.602480], abs=2e-6)


@pytest.mark.parametrize("tau", [1, 5, 16])
def test_at_zero_all_sign_patterns_are_equally_likely(tau: int) -> None:
    zeros = torch.zeros(1, tau)
    assert MF.hash_weights(zeros, score="softmax").item() == 2.0**-tau
    assert MF.hash_weights(zeros, score="scaled").item() == 0.0


def test_huge_numbers_give_certainty_and_no_overflow() -> None:
    z = torch.tensor([1e30, -1e30, 3e38 / 4])
    assert MF.hash_weights(z, score="softmax").item() == 1.0
    assert MF.hash_weights(z, score="scaled").item() == pytest.approx(float(z.abs().sum()))


def test_zero_of_either_sign_is_bit_1_and_nan_is_bit_0() -> None:
    assert MF.hash_codes(torch.tensor([0.0, -0.0, math.nan, 1.0])).item() == 0b1101


def test_one_chunk_of_one_number_in_closed_form() -> None:
    # tau = 1, t = 2, z = -3: code 0, p = σ(2·3/2) = σ(3), w = 1.5 p; y = w T[0] + b.
    # dw/dz = -(p/t)(1 + 1.5 · 2σ(-3)), and dy/dz = <1, T[0]> dw/dz = 5 dw/dz.
    z = torch.tensor([[[-3.0]]], dtype=torch.float64, requires_grad=True)
    tables = torch.tensor([[[2.0, 3.0], [7.0, 7.0]]], dtype=torch.float64, requires_grad=True)
    bias = torch.tensor([0.5, -0.5], dtype=torch.float64, requires_grad=True)
    y = MF.memory_lookup(z, tables, bias, temperature=2.0)
    p = 1 / (1 + math.exp(-3))
    assert y.tolist()[0] == pytest.approx([1.5 * p * 2 + 0.5, 1.5 * p * 3 - 0.5])
    y.sum().backward()
    assert z.grad is not None
    assert tables.grad is not None
    assert bias.grad is not None
    assert z.grad.item() == pytest.approx(-5 * (p / 2) * (1 + 1.5 * 2 * (1 - p)))
    assert tables.grad.tolist() == [[pytest.approx([1.5 * p, 1.5 * p]), [0.0, 0.0]]]
    assert bias.grad.tolist() == [1.0, 1.0]


def test_no_gradient_passes_through_a_coordinate_at_zero() -> None:
    z = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    MF.memory_lookup(z, torch.ones(1, 4, 1)).sum().backward()
    assert z.grad is not None
    assert z.grad[0, 0, 0].item() == 0.0
    assert z.grad[0, 0, 1].item() != 0.0
