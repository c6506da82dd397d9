"""Folding: scores stay what they were when the sine of zero-frequency pairs changes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fope import FopeConfig, FopeError, FourierPositionEmbedding
from fope.folding import fold_norm, fold_rows, zero_channels, zero_phase_scale


def embeddings(config: FopeConfig, zero_sin: float) -> list[FourierPositionEmbedding]:
    return [
        FourierPositionEmbedding(changed, generator=torch.Generator().manual_seed(0))
        for changed in (config, dataclasses.replace(config, zero_sin=zero_sin))
    ]


def scores(embedding: FourierPositionEmbedding, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    q, k = embedding(q, k)
    return q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).transpose(-1, -2)


@given(
    old=st.sampled_from([0.0, 1.0, 0.5]),
    new=st.sampled_from([0.0, 1.0, -1.0, 2.0]),
    interleaved=st.booleans(),
    rotary_dim=st.sampled_from([None, 8]),
    group=st.integers(1, 3),
)
@settings(max_examples=20, deadline=None)
def test_projections_folded_give_the_same_scores(
    old: float, new: float, interleaved: bool, rotary_dim: int | None, group: int
) -> None:
    config = FopeConfig(12, 2, 30, zero_sin=old, interleaved=interleaved, rotary_dim=rotary_dim)
    x = torch.randn(1, 9, 20)
    weights = [torch.randn(heads * 12, 20) for heads in (2 * group, 2)]
    biases = [torch.randn(heads * 12) for heads in (2 * group, 2)]

    def project(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return (x @ weight.T + bias).unflatten(-1, (-1, 12)).transpose(1, 2)

    before, after = embeddings(config, new)
    expected = scores(before, *map(project, weights, biases))
    folded = [[fold_rows(part, config, new) for part in parts] for parts in (weights, biases)]
    assert torch.allclose(scores(after, *map(project, *folded)), expected, rtol=1e-4, atol=1e-3)


def test_normalised_queries_fold_into_the_norm() -> None:
    config = FopeConfig(12, 2, 30)
    before, after = embeddings(config, 0.0)
    x = torch.nn.functional.normalize(torch.randn(1, 2, 9, 12), dim=-1)
    weight = torch.rand(12) + 0.5
    expected = scores(before, x * weight, x * weight)
    folded = fold_norm(weight, config, 0.0)
    assert torch.allclose(scores(after, x * folded, x * folded), expected, atol=1e-5)
    assert torch.allclose(fold_norm(weight - 1, config, 0.0, offset=1.0) + 1, folded, atol=1e-6)


def test_the_channels_and_the_scale() -> None:
    config = FopeConfig(8, 1, 100)  # R = 2 of 4
    assert zero_channels(config).tolist() == [2, 3, 6, 7]
    assert zero_channels(dataclasses.replace(config, interleaved=True)).tolist() == [4, 5, 6, 7]
    assert zero_phase_scale(1.0, 0.0) == pytest.approx(math.sqrt(2))
    weight = fold_rows(torch.ones(16, 3), config, 0.0)
    assert weight[:, 0].tolist() == pytest.approx([1, 1, 2**0.5, 2**0.5] * 4)
    there_and_back = fold_rows(weight, dataclasses.replace(config, zero_sin=0.0), 1.0)
    assert torch.allclose(there_and_back, torch.ones(16, 3))
    assert fold_rows(torch.ones(8, 2, dtype=torch.bfloat16), config, 0.0).dtype == torch.bfloat16


def test_weights_that_do_not_fit() -> None:
    config = FopeConfig(8, 1, 100)
    with pytest.raises(FopeError, match="12 rows are no whole heads of 8"):
        fold_rows(torch.ones(12, 3), config, 0.0)
    with pytest.raises(FopeError, match="the norm has 32 weights, a head 8 channels"):
        fold_norm(torch.ones(32), config, 0.0)
