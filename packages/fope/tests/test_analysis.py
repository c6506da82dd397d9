"""What the analysis says of embeddings whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fope import FopeConfig, FourierPositionEmbedding
from fope.analysis import (
    channel_means,
    misled_pairs,
    query_key_activation,
    score_by_distance,
    score_periodicity,
    shift_sensitivity,
    spectrum_damage,
)
from fope.baselines import rope_a


def built(config: FopeConfig) -> FourierPositionEmbedding:
    return FourierPositionEmbedding(config, generator=torch.Generator().manual_seed(0))


def test_shifts_change_scores_only_with_the_series() -> None:
    assert shift_sensitivity(built(FopeConfig(64, 8, 512, series=False))).mean < 1e-5
    assert shift_sensitivity(built(FopeConfig(64, 8, 512))).mean == pytest.approx(0.08, abs=0.03)
    literal = shift_sensitivity(built(FopeConfig.paper_text(64, 8, 512)))
    assert literal.mean > 0.7  # noise N(0, 0.3²) destroys the position signal
    assert len(literal.relative_change) == len(literal.shifts)


def test_scores_by_distance_in_closed_form() -> None:
    embedding = built(FopeConfig(8, 2, 100, series=False, zero_sin=0.0))
    scores = score_by_distance(embedding, 20)
    p = torch.arange(20)
    expected = 2 * (torch.cos(p) + torch.cos(0.1 * p) + 2)
    assert torch.allclose(scores, expected.expand(2, -1), atol=1e-4)


def test_attention_repeats_itself_exactly_where_waves_complete_whole_cycles() -> None:
    L = 512
    embedding = built(FopeConfig(64, 1, L, series=False))
    assert score_periodicity(score_by_distance(embedding, 4 * L), L).abs().max() < 0.5
    embedding.set_inv_freq(rope_a(embedding.inv_freq, L))
    assert score_periodicity(score_by_distance(embedding, 4 * L), L).tolist() == [pytest.approx([1, 1, 1])]


def test_every_rotated_pair_is_led_by_its_own_wave_save_in_the_released_quirk() -> None:
    for config in (
        FopeConfig(64, 8, 512),
        FopeConfig(64, 8, 1024, oversample=4),
        FopeConfig.olmo(64, 8, 512),
    ):
        assert misled_pairs(built(config)) == []
    quirk = misled_pairs(built(FopeConfig.olmo(64, 1, 1024)))
    assert [pair.pair for pair in quirk] == list(range(1, 16))
    assert [pair.largest_row for pair in quirk[:8]] == list(range(2, 18, 2))
    assert sum(abs(pair.largest_weight) < 0.5 for pair in quirk) == 7  # no wave leads them at all


def test_a_nonlinearity_makes_new_waves_and_the_identity_none() -> None:
    assert spectrum_damage(activation=lambda x: x).leaked == pytest.approx(0, abs=1e-20)
    damage = spectrum_damage((8, 21))
    assert damage.leaked > 0.1
    strongest = damage.after.clone()
    strongest[[0, 8, 21]] = 0
    assert int(strongest.argmax()) in (21 - 8, 21 + 8, 2 * 8, 2 * 21)  # differences, sums, harmonics
    square = spectrum_damage((8, 21), activation=torch.square).after
    assert square[[16, 42, 13, 29]].tolist() == pytest.approx([0.25, 0.25, 0.5, 0.5])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(6, 8, bias=False), nn.Linear(6, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.q_proj(x).sum() + self.k_proj(x).sum()


def test_activations_of_queries_and_keys_by_channel() -> None:
    model = nn.ModuleDict({"layer": Attention()})
    model.forward = lambda x: model["layer"](x)  # type: ignore[method-assign]
    x = torch.randn(3, 5, 6)
    means = query_key_activation(model, {"x": x}, head_dim=4)
    assert {name: tuple(mean.shape) for name, mean in means.items()} == {
        "layer.q_proj": (2, 4),
        "layer.k_proj": (1, 4),
    }
    expected = model["layer"].q_proj(x).abs().mean(dim=(0, 1)).view(2, 4)
    assert torch.allclose(means["layer.q_proj"], expected, atol=1e-6)
    assert channel_means(torch.full((1, 2, 3, 4), -2.0)).tolist() == [[2.0] * 4] * 2
