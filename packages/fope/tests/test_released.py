"""Equivalence with the released embedding and Intern-S1-Pro's; the layouts of checkpoints.

`python packages/fope/tests/test_released.py` records data/released.json anew: what the re-stated released
embedding gives. Coefficients and queries are sines, so that every machine and every torch makes the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fope import FopeConfig, FopeError, FourierPositionEmbedding
from fope.coefficients import draw, eye
from fope.compat.intern import intern_cos_sin, intern_inv_freq, intern_rotation
from fope.compat.layouts import read_coefficients, write_coefficients
from fope.compat.olmo import released_eye, released_inv_freq, released_rotation

FILE = Path(__file__).parent / "data" / "released.json"
POSITIONS = torch.tensor([0, 1, 77, 900])
CASES: dict[str, dict[str, int]] = {
    "60M, 512": {"head_dim": 64, "train_length": 512, "fourier_dim": 0},
    "180M, 512": {"head_dim": 128, "train_length": 512, "fourier_dim": 0},
    "60M, 1024: rows of other pairs": {"head_dim": 64, "train_length": 1024, "fourier_dim": 0},
    "60M, 512, 62 frequencies": {"head_dim": 64, "train_length": 512, "fourier_dim": 256},
}


def waves(*shape: int, phase: float) -> Tensor:
    """Numbers in [−1, 1] without a pattern that matters, of the given shape."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(7.3 * count + phase).float().view(shape)


def inputs(case: dict[str, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [1, 2, T, d], the bank, and coefficients [2, D, R]: the released ones plus noise of width 0.02."""
    bank = released_inv_freq(**case)
    eye = released_eye(len(bank), case["head_dim"])
    cos, sin = (eye + 0.03 * waves(2, *eye.shape, phase=phase) for phase in (0.4, 1.9))
    return waves(1, 2, len(POSITIONS), case["head_dim"], phase=0.0), bank, cos, sin


def record() -> None:
    recorded = {}
    for name, case in CASES.items():
        x, bank, cos, sin = inputs(case)
        y = released_rotation(x, POSITIONS, bank, cos, sin)
        recorded[name] = [round(value, 6) for value in y.flatten().tolist()]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(recorded, separators=(",", ":")) + "\n", encoding="utf-8")


def with_coefficients(config: FopeConfig, cos: Tensor, sin: Tensor) -> FourierPositionEmbedding:
    embedding = FourierPositionEmbedding(config)
    embedding.load_state_dict({"cos_coef": cos, "sin_coef": sin})
    return embedding


@pytest.mark.parametrize("name", CASES)
def test_the_released_embedding(name: str) -> None:
    case = CASES[name]
    x, bank, cos, sin = inputs(case)
    recorded = torch.tensor(json.loads(FILE.read_text(encoding="utf-8"))[name]).view_as(x)
    restated = released_rotation(x, POSITIONS, bank, cos, sin)
    assert (restated - recorded).abs().max() < 1e-5
    config = FopeConfig.olmo(num_heads=2, **case)
    assert torch.allclose(config.bank(), bank, rtol=1e-6, atol=0)
    assert torch.equal(eye(config), released_eye(len(bank), case["head_dim"]))
    ours, _ = with_coefficients(config, cos, sin)(x, x, POSITIONS)
    assert (ours - recorded).abs().max() <= 1e-5
    exact = FopeConfig.from_dict(config.to_dict() | {"angle_dtype": "float64"})
    ours, _ = with_coefficients(exact, cos, sin)(x, x, POSITIONS)
    assert (ours - recorded).abs().max() <= 2e-4


def test_float32_angles_are_the_released_ones_to_1e_6() -> None:
    config = FopeConfig.olmo(64, 2, 512)
    cos, sin = draw(config, torch.Generator().manual_seed(0))
    x = torch.randn(1, 2, 1000, 64, generator=torch.Generator().manual_seed(0))
    theirs = released_rotation(x, torch.arange(1000), released_inv_freq(64, 512), cos, sin)
    ours, _ = with_coefficients(config, cos, sin)(x, x)
    assert (ours - theirs).abs().max() <= 2e-6


def test_at_1024_the_released_rows_are_those_of_other_pairs() -> None:
    ones = released_eye(18, 64)
    assert ones.argmax(dim=0)[:9].tolist() == list(range(0, 18, 2))  # pair j has the wave of pair 2j
    assert (ones.sum(dim=0) == 0).sum() == 7  # and 7 of 16 none
    for frequencies, step in ((31, 2), (62, 4), (123, 8)):  # oversampled banks come out right
        assert torch.equal(released_eye(frequencies, 64).argmax(dim=0), torch.arange(0, 16 * step, step))


@pytest.mark.parametrize("zero_sin", [1.0, 0.0])
@pytest.mark.parametrize("num_inv_freq", [None, 50])
def test_intern_s1_pro(zero_sin: float, num_inv_freq: int | None) -> None:
    shape = {"head_dim": 128, "max_position_embeddings": 262144, "theta": 5e6, "num_inv_freq": num_inv_freq}
    config = FopeConfig.intern_s1(num_heads=4, **shape)
    config = FopeConfig.from_dict(config.to_dict() | {"zero_sin": zero_sin})
    assert torch.equal(config.bank(), intern_inv_freq(**shape))
    cos_coef, sin_coef = draw(config, torch.Generator().manual_seed(0))
    positions = torch.tensor([0, 3, 500, 900])
    cos, sin = intern_cos_sin(positions, config.bank(), cos_coef, sin_coef, 128, zero_sin)
    q, k = torch.randn(4, 16, 128), torch.randn(4, 4, 128)
    theirs = [intern_rotation(x, cos, sin).transpose(0, 1) for x in (q, k)]
    embedding = with_coefficients(config, cos_coef, sin_coef)
    ours = embedding(q.transpose(0, 1)[None], k.transpose(0, 1)[None], positions)
    for a, b in zip(ours, theirs, strict=True):
        assert (a[0] - b).abs().max() <= 1e-5


def sets(*layers: int | None) -> dict[int | None, tuple[Tensor, Tensor]]:
    return {
        layer: draw(FopeConfig(64, 2, 512), torch.Generator().manual_seed(layer or 0)) for layer in layers
    }


@pytest.mark.parametrize(
    ("layout", "layers", "key"),
    [
        ("fope", (0, 1, 11), "model.layers.11.self_attn.fope.sin_coef"),
        ("olmo", (0, 1, 11), "transformer.blocks.11.pos_emb.cos_coef"),
        ("intern_s1", (None,), "model.language_model.rotary_emb.cos_coef"),
    ],
)
def test_layouts_are_read_as_written(layout: str, layers: tuple[int | None, ...], key: str) -> None:
    written = write_coefficients(sets(*layers), layout)
    assert key in written
    read_layout, read = read_coefficients(written | {"model.embed_tokens.weight": torch.zeros(1)})
    assert read_layout == layout
    assert set(read) == set(layers)
    assert all(
        torch.equal(a, b) for layer in layers for a, b in zip(read[layer], sets(*layers)[layer], strict=True)
    )


def test_coefficients_that_cosine_and_sine_share() -> None:
    shared = torch.randn(2, 16, 16)
    _, read = read_coefficients({"transformer.blocks.0.pos_emb.fourier_coef": shared})
    assert torch.equal(read[0][0], shared)
    assert torch.equal(read[0][1], shared)


def test_layouts_that_cannot_be() -> None:
    written = write_coefficients(sets(0, 1), "fope")
    with pytest.raises(FopeError, match="expected the coefficients of one layout, found none"):
        read_coefficients({"lm_head.weight": torch.zeros(1)})
    with pytest.raises(FopeError, match=r"found model\.layers.* and transformer\.blocks"):
        read_coefficients(written | write_coefficients(sets(0), "olmo"))
    del written["model.layers.1.self_attn.fope.cos_coef"]
    with pytest.raises(FopeError, match=r"model.layers.1.self_attn.fope.cos_coef is missing"):
        read_coefficients(written)
    with pytest.raises(FopeError, match="holds one set for all layers"):
        write_coefficients(sets(0, 1), "intern_s1")
    with pytest.raises(FopeError, match="layout is 'gguf'"):
        write_coefficients(sets(0), "gguf")
    broken = write_coefficients(sets(0), "olmo")
    broken["transformer.blocks.0.pos_emb.cos_coef"][0, 1, 2] = float("inf")
    with pytest.raises(FopeError, match=r"cos_coef\[0, 1, 2\] is inf"):
        read_coefficients(broken)


if __name__ == "__main__":
    record()
