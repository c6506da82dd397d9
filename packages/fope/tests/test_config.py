"""The config: what follows from it, presets, the round trip, and every mistake by its message."""

from __future__ import annotations

import pytest
import torch

from fope import FopeConfig, FopeError


@pytest.mark.parametrize(
    ("head_dim", "theta", "length", "kept"),
    [
        (64, 1e4, 512, 16),
        (64, 1e4, 1024, 18),
        (64, 1e4, 2048, 21),
        (64, 1e4, 4096, 23),
        (128, 1e4, 512, 31),
        (128, 1e4, 1024, 36),
        (128, 1e4, 4096, 46),
        (128, 5e6, 262144, 45),
        (64, 1e5, 8192, 20),
    ],
)
def test_pairs_kept_for_common_shapes(head_dim: int, theta: float, length: int, kept: int) -> None:
    config = FopeConfig(head_dim, 8, length, theta)
    assert (config.num_kept, config.num_frequencies, config.num_pairs) == (kept, kept, head_dim // 2)


def test_oversampled_banks_of_the_60m_model() -> None:
    configs = [FopeConfig(64, 8, 512, oversample=r) for r in (1, 2, 4, 8)]
    assert [config.num_frequencies for config in configs] == [16, 31, 62, 123]
    assert {config.num_kept for config in configs} == {16}


def test_a_bank_of_a_given_size_does_not_look_at_the_floor() -> None:
    config = FopeConfig.intern_s1(128, 4, 262144, theta=5e6, num_inv_freq=50)
    assert (config.num_kept, config.num_frequencies) == (50, 50)
    assert FopeConfig.intern_s1(128, 4, 262144, theta=5e6).num_kept == 45


def test_partial_rotary_and_caps() -> None:
    config = FopeConfig(64, 2, 512, rotary_dim=32, max_pairs=5)
    assert (config.num_pairs, config.num_kept, len(config.bank())) == (16, 5, config.num_frequencies)
    assert FopeConfig(64, 2, 512, clip=False, oversample=2).num_frequencies == 64


def test_presets_have_their_quirks() -> None:
    olmo = FopeConfig.olmo(64, 8, 1024, fourier_dim=256)
    assert (olmo.max_pairs, olmo.oversample, olmo.angle_dtype, olmo.zero_sin) == (16, 4, "float32", 1.0)
    assert FopeConfig.olmo(64, 8, 1024).row_step == 2  # ceil(18/16)
    assert FopeConfig.intern_s1(128, 4, 262144).strict
    assert (FopeConfig.paper_text(64, 8, 512).init, FopeConfig.paper_text(64, 8, 512).zero_sin) == (
        "eye_normal",
        0,
    )


def test_strict_leaves_out_the_frequency_at_the_floor() -> None:
    # ω_1 = θ^(−1/2) = 1/100 is just above 2π/629 and just below 2π/628.
    assert [FopeConfig(4, 1, length).num_kept for length in (628, 629)] == [1, 2]
    assert FopeConfig(4, 1, 629, strict=True).num_kept == 2


def test_round_trip() -> None:
    config = FopeConfig.olmo(64, 8, 512, init_gain=0.4, fourier_dim=128)
    assert FopeConfig.from_json(config.to_json()) == config
    assert hash(FopeConfig.from_dict(config.to_dict())) == hash(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_length": 0}, "no frequency has a full period in L=0"),
        ({"train_length": 6}, "no frequency has a full period in L=6"),
        ({"train_length": "512"}, "train_length must be a whole number of at least 1, got '512'"),
        ({"head_dim": 63}, "head_dim must be even, since channels turn in pairs, got 63"),
        ({"rotary_dim": 66}, "rotary_dim must be even and at most head_dim 64, got 66"),
        ({"rotary_dim": 31}, "rotary_dim must be even"),
        ({"max_pairs": 33}, "max_pairs must be at most 32, all that there are, got 33"),
        ({"num_inv_freq": 33}, "num_inv_freq must be at most 32"),
        ({"num_heads": 0}, "num_heads must be a whole number of at least 1, got 0"),
        ({"theta": 1.0}, "theta must be a finite number above 1, got 1.0"),
        ({"init_gain": -0.3}, "init_gain must be a finite number of at least 0, got -0.3"),
        ({"init_std": float("nan")}, "init_std must be a finite number of at least 0, got nan"),
        (
            {"init": "xavier"},
            "init must be one of 'eye_xavier_normal', 'eye_xavier_uniform', 'eye_normal', 'eye'",
        ),
        ({"zero_sin": float("inf")}, "zero_sin must be a finite number"),
        ({"direction": 0}, "direction must be one of 1, -1, got 0"),
        ({"angle_dtype": "bfloat16"}, "angle_dtype must be one of 'float64', 'float32'"),
        ({"clip": None}, "clip must be one of True, False, got None"),
    ],
)
def test_impossible_values_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FopeError) as caught:
        FopeConfig.from_dict({"head_dim": 64, "num_heads": 2, "train_length": 512} | changes)
    assert message in str(caught.value)


def test_unreadable_configs_are_named() -> None:
    with pytest.raises(FopeError, match=r"zeta.*zero_sin"):
        FopeConfig.from_dict({"head_dim": 64, "num_heads": 2, "train_length": 512, "zeta": 1})
    with pytest.raises(FopeError, match="needs train_length"):
        FopeConfig.from_dict({"head_dim": 64, "num_heads": 2})
    with pytest.raises(FopeError, match="JSON object"):
        FopeConfig.from_json("[64]")
    with pytest.raises(FopeError, match="JSON object"):
        FopeConfig.from_json("{")
    with pytest.raises(FopeError, match="fourier_dim must be a multiple of head_dim 64, got 100"):
        FopeConfig.olmo(64, 8, 512, fourier_dim=100)


def test_float32_banks_have_the_bits_of_transformers() -> None:
    ours = FopeConfig(64, 2, 512, clip=False, angle_dtype="float32").bank()
    theirs = 1.0 / (1e4 ** (torch.arange(0, 64, 2, dtype=torch.int64).to(dtype=torch.float) / 64))
    assert torch.equal(ours, theirs)
