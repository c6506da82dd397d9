"""The baselines against their formulas and against transformers."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from fope import FopeError
from fope.analysis import score_periodicity
from fope.baselines import Alibi, Fire, Kerple, alibi_bias, alibi_slopes, nope, rope, rope_a
from fope.frequencies import rope_frequencies

POSITIONS = torch.arange(10)


def test_rope_is_that_of_transformers() -> None:
    x, bank = torch.randn(2, 4, 10, 16), rope_frequencies(16, 1e4, dtype=torch.float32)
    angles = torch.outer(POSITIONS.float(), bank).repeat(1, 2)[None]
    expected, _ = apply_rotary_pos_emb(x, x, angles.cos(), angles.sin())
    assert torch.allclose(rope(x, POSITIONS, bank), expected, atol=1e-6)
    assert torch.allclose(rope(x, POSITIONS.expand(2, -1), bank), expected, atol=1e-6)


def test_rope_a_completes_whole_cycles() -> None:
    bank = rope_a(rope_frequencies(64), 512)
    cycles = bank * 512 / (2 * math.pi)
    assert torch.allclose(cycles, cycles.round(), atol=1e-9)
    assert (cycles == 0).sum() == 32 - 18  # the pairs whose nearest is none, periods above 1024
    waves = torch.cos(torch.outer(torch.arange(4 * 512), bank)).sum(dim=1)
    assert score_periodicity(waves, 512).tolist() == pytest.approx([1, 1, 1])
    with pytest.raises(FopeError, match="train_length is 0"):
        rope_a(bank, 0)


def test_alibi_slopes_by_hand() -> None:
    assert alibi_slopes(2).tolist() == pytest.approx([1 / 16, 1 / 256])
    assert alibi_slopes(8).tolist() == pytest.approx([2.0**-i for i in range(1, 9)])


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12])
def test_alibi_is_that_of_bloom(heads: int) -> None:
    theirs = build_alibi_tensor(torch.ones(1, 10), heads, torch.float32)  # slope·j: the same after a softmax
    bias = alibi_bias(heads, POSITIONS, POSITIONS)
    assert torch.equal(Alibi(heads)(POSITIONS, POSITIONS), bias)
    last = bias[:, -1] - bias[:, -1, :1]
    assert torch.allclose(last, theirs[:, 0] - theirs[:, 0, :1], atol=1e-6)


def test_kerple_by_hand() -> None:
    kerple = Kerple(2)
    with torch.no_grad():
        kerple.r1.copy_(torch.tensor([1.0, -5.0]))
        kerple.r2.copy_(torch.tensor([2.0, 1.0]))
    bias = kerple(POSITIONS, POSITIONS)
    assert bias[0, 9, 6].item() == pytest.approx(-math.log(7))
    assert bias[1, 9, 6].item() == pytest.approx(-0.01 * math.log(4))  # kept positive


def test_fire_by_hand() -> None:
    fire = Fire(3, train_length=5)
    bias = fire(POSITIONS, POSITIONS)
    assert bias.shape == (3, 10, 10)
    for query, key in ((3, 1), (9, 1)):  # before and beyond the threshold
        share = math.log(0.1 * (query - key) + 1) / math.log(0.1 * max(query, 5) + 1)
        expected = fire.outer(fire.inner(torch.tensor([share])).relu())
        assert torch.allclose(bias[:, query, key], expected, atol=1e-6)
    bias.sum().backward()
    assert all(p.grad is not None for p in fire.parameters())


def test_nope_does_nothing() -> None:
    x = torch.randn(1, 2, 3, 4)
    assert nope(x, POSITIONS) is x
