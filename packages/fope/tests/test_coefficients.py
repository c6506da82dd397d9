"""How coefficients start, grow and are compared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from fope import FopeConfig, FopeError, FourierPositionEmbedding
from fope.coefficients import check_ranks, checksum, draw, eye, grow, init_std, normalize


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dominant_rows(coef: torch.Tensor) -> torch.Tensor:
    """The wave with the largest weight in each pair's series, [H, R]."""
    return coef.abs().argmax(dim=-2)


@pytest.mark.parametrize(
    ("config", "std"),
    [
        (FopeConfig(64, 8, 512, init_gain=0.3), 0.0217),  # 60M
        (FopeConfig(128, 8, 512, init_gain=0.4), 0.0163),  # 180M
        (FopeConfig(128, 16, 512, init_gain=0.6), 0.0222),  # 1.2B
        (FopeConfig.intern_s1(128, 4, 262144, theta=5e6), 0.0151),
    ],
)
def test_the_width_of_the_noise_is_that_of_the_released_code(config: FopeConfig, std: float) -> None:
    assert init_std(config) == pytest.approx(std, abs=6e-5)


@pytest.mark.parametrize("init", ["eye_xavier_normal", "eye_xavier_uniform", "eye_normal"])
def test_the_sample_has_that_width(init: str) -> None:
    config = FopeConfig(64, 64, 512, init=init)
    cos, sin = draw(config, seeded())
    for coef in (cos, sin):
        assert (coef - eye(config)).std().item() == pytest.approx(init_std(config), rel=0.05)
    assert not torch.equal(cos, sin)


def test_xavier_is_torchs_own_formula() -> None:
    config = FopeConfig(64, 64, 512, oversample=4)
    theirs = torch.nn.init.xavier_normal_(torch.empty(64, 62, 16), gain=0.3, generator=seeded())
    assert theirs.std().item() == pytest.approx(init_std(config), rel=0.02)
    shared = FopeConfig(64, 64, 512, oversample=4, separate_heads=False)
    assert init_std(shared) == pytest.approx(0.3 * math.sqrt(2 / (62 + 16)))


def test_each_series_is_led_by_its_own_wave() -> None:
    rows = dominant_rows(draw(FopeConfig(64, 8, 512, oversample=4), seeded())[0])
    assert (rows == torch.arange(0, 64, 4)).all()
    assert eye(FopeConfig(64, 8, 512, oversample=4)).shape == (62, 16)


def test_options_of_the_start() -> None:
    only_eye = draw(FopeConfig(64, 2, 512, init="eye"))[0]
    assert torch.equal(only_eye, eye(FopeConfig(64, 2, 512)).expand(2, 16, 16))
    assert torch.equal(draw(FopeConfig(64, 2, 512, series=False))[1], only_eye)
    assert init_std(FopeConfig(64, 2, 512, init_std=0.7)) == 0.7
    cos, sin = draw(FopeConfig(64, 2, 512, separate_basis=False), seeded())
    assert torch.equal(cos, sin)
    assert draw(FopeConfig(64, 2, 512, separate_heads=False), seeded())[0].shape == (1, 16, 16)


def test_the_same_generator_gives_the_same_values() -> None:
    config = FopeConfig(64, 2, 512)
    assert torch.equal(draw(config, seeded(3))[1], draw(config, seeded(3))[1])
    assert not torch.equal(draw(config, seeded(3))[1], draw(config, seeded(4))[1])


@pytest.mark.parametrize("preset", [FopeConfig, FopeConfig.olmo])
def test_growth_keeps_the_old_block_and_every_pair_one_dominant_wave(preset: type[FopeConfig]) -> None:
    old, new = preset(64, 8, 512), preset(64, 8, 1024)
    before = draw(old, seeded())
    grown = grow(*before, old, new, seeded(1))
    for coef, first in zip(grown, before, strict=True):
        assert coef.shape == (8, new.num_frequencies, new.num_kept)
        assert torch.equal(coef[:, :16, :16], first)
        assert ((coef > 0.5).sum(dim=1) == 1).all()  # the released code has a second one, at (16, 8)
        assert (dominant_rows(coef) == torch.arange(new.num_kept)).all()


def test_growth_of_other_waves_is_refused() -> None:
    old, new = FopeConfig(64, 8, 512), FopeConfig(64, 8, 1024, theta=5e5)
    with pytest.raises(FopeError, match=r"cannot grow from theta=10000.0 to 500000.0"):
        grow(*draw(old), old, new)
    with pytest.raises(FopeError, match=r"do not shrink: \[18, 18\].*to \[16, 16\]"):
        grow(*draw(FopeConfig(64, 8, 1024)), FopeConfig(64, 8, 1024), old)


def test_normalisation() -> None:
    coef = torch.tensor([[[2.0, 1.0], [2.0, 3.0]]])
    assert normalize(coef).tolist() == [[[0.5, 0.25], [0.5, 0.75]]]
    with pytest.raises(FopeError, match=r"sums to 0.05, too close to zero"):
        normalize(torch.tensor([[[0.5], [-0.45]]]))
    with pytest.raises(FopeError, match="too close to zero"):
        normalize(torch.tensor([[[float("nan")], [1.0]]]))


def test_checksums_see_every_value() -> None:
    cos, sin = draw(FopeConfig(64, 2, 512), seeded())
    other = sin.clone()
    other[1, 5, 5] += 1e-6
    assert checksum(cos, sin) == checksum(cos.clone(), sin.clone())
    assert len({checksum(cos, sin), checksum(cos, other), checksum(sin, cos)}) == 3


def _rank(rank: int, store: str, seeds: tuple[int, int], queue: torch.multiprocessing.Queue) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    config = FopeConfig(64, 2, 512)
    model = torch.nn.ModuleList(
        FourierPositionEmbedding(config, generator=seeded(seeds[rank])) for _ in range(2)
    )
    try:
        check_ranks(model)
        queue.put("equal")
    except FopeError as error:
        queue.put(str(error))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "answer"),
    [
        pytest.param((0, 0), "equal", marks=pytest.mark.long),
        ((0, 1), "coefficients differ between rank 0 and rank 1"),
    ],
)
def test_ranks_compare_their_coefficients(tmp_path: object, seeds: tuple[int, int], answer: str) -> None:
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=_rank, args=(rank, f"{tmp_path}/store", seeds, queue)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    said = [queue.get(timeout=600) for _ in processes]
    for process in processes:
        process.join(timeout=600)
    assert all(answer in text for text in said), said


def test_coefficients_that_fsdp_has_sharded_are_left_out(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        fixed, learnable = (
            FourierPositionEmbedding(FopeConfig(64, 2, 512, learnable=trained)) for trained in (False, True)
        )
        fully_shard(learnable, mesh=init_device_mesh("cpu", (1,)))
        assert isinstance(learnable.cos_coef, DTensor)
        check_ranks(torch.nn.ModuleList([fixed, learnable]))
        check_ranks(learnable)
    finally:
        torch.distributed.destroy_process_group()


def test_without_ranks_there_is_nothing_to_compare() -> None:
    check_ranks(torch.nn.Linear(2, 2))
