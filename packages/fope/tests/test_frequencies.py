"""Banks, the floor, YaRN and interpolation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from fope import FopeError, kept_frequencies
from fope.frequencies import Yarn, interpolate, periods, rope_frequencies, yarn


def kept_count(head_dim: int, theta: float, train_length: int) -> int:
    """R in closed form: min(P, 1 + floor(P·ln(L/2π)/ln θ)), for L ≥ 2π."""
    pairs = head_dim // 2
    return min(pairs, 1 + math.floor(pairs * math.log(train_length / (2 * math.pi)) / math.log(theta)))


def test_a_bank_by_hand() -> None:
    # d_h = 8, θ = 10⁴: ω = 1, 0.1, 0.01, 0.001; the floor of L = 100 is 0.0628.
    assert rope_frequencies(8, 1e4).tolist() == pytest.approx([1, 0.1, 0.01, 0.001])
    assert kept_frequencies(8, 1e4, 100).tolist() == pytest.approx([1, 0.1])
    assert periods(torch.tensor([1.0, 0.0])).tolist() == pytest.approx([2 * math.pi, math.inf])


@given(
    pairs=st.integers(1, 128),
    theta=st.floats(1.5, 1e7),
    length=st.integers(7, 2**20),
)
def test_the_number_kept_in_closed_form(pairs: int, theta: float, length: int) -> None:
    exact = pairs * math.log(length / (2 * math.pi)) / math.log(theta)
    if abs(exact - round(exact)) < 1e-9:
        return  # on the floor itself, where rounding decides
    assert len(kept_frequencies(2 * pairs, theta, length)) == kept_count(2 * pairs, theta, length)


@given(pairs=st.integers(1, 64), r=st.integers(1, 8), theta=st.floats(1.5, 1e7))
def test_an_oversampled_bank_holds_every_pairs_own_wave(pairs: int, r: int, theta: float) -> None:
    own, fine = rope_frequencies(2 * pairs, theta), rope_frequencies(2 * pairs, theta, r)
    assert torch.allclose(fine[::r], own, rtol=1e-15, atol=0)  # pow of a vector and of a rest differ in a bit


def test_no_frequency_left() -> None:
    with pytest.raises(FopeError, match="no frequency has a full period in L=6"):
        kept_frequencies(64, 1e4, 6)


def test_yarn_is_that_of_transformers_on_the_whole_bank() -> None:
    config = LlamaConfig(
        hidden_size=512,
        num_attention_heads=8,
        max_position_embeddings=8192,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10_000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 512,
        },
    )
    theirs, factor = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    ours = yarn(rope_frequencies(64), 64, 1e4, Yarn())
    assert torch.allclose(ours.float(), theirs, rtol=1e-6, atol=0)
    assert Yarn().attention_factor == pytest.approx(factor)


def test_yarn_after_clipping_leaves_zeros_and_fast_waves_alone() -> None:
    assert Yarn().range(64, 1e4) == (3, 16)  # the 60M model's
    bank = torch.cat([kept_frequencies(64, 1e4, 512), torch.zeros(16)])
    scaled = yarn(bank, 64, 1e4, Yarn())
    assert torch.equal(scaled[:4], bank[:4])
    assert (scaled[4:16] < bank[4:16]).all()
    assert (scaled[16:] == 0).all()


def test_yarn_treats_an_oversampled_bank_by_its_frequencies() -> None:
    fine = yarn(rope_frequencies(64, 1e4, 4), 64, 1e4, Yarn())
    assert torch.allclose(fine[::4], yarn(rope_frequencies(64, 1e4), 64, 1e4, Yarn()), rtol=1e-12)


def test_interpolation() -> None:
    assert interpolate(torch.tensor([1.0, 0.5]), 512, 2048).tolist() == [0.25, 0.125]
    with pytest.raises(FopeError, match="must not be smaller"):
        interpolate(torch.ones(1), 2048, 512)
    with pytest.raises(FopeError, match="YaRN needs factor"):
        Yarn(factor=0.5)
