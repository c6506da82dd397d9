"""The protocol of section 8.2 on tiny sizes: what is measured, counted and refused; no timing is judged."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from memoryformer import MemoryFormerError, MemoryLayer, backends, benchmark
from memoryformer.benchmark import (
    BASE,
    OFFICIAL,
    Report,
    Timing,
    bench,
    embedding_bag_lookup,
    official_lookup,
)

OURS = [f"{kind} {dtype}" for dtype in ("float32", "bfloat16", "int8") for kind in ("kernel", "module")]
DENSE = ["nn.Linear bfloat16", "nn.Linear int8 dynamic"]
LOOKUPS = ["embedding_bag + hash float32", OFFICIAL]
READS = [f"row sum, no hash {dtype}" for dtype in ("float32", "bfloat16", "int8")]
TINY = {"seconds": 0.01, "cache_bytes": 2**14}


@pytest.fixture(scope="module")
def report() -> Report:
    return bench((64, 128), (1, 4), **TINY)


def test_every_arm_is_measured_at_every_size(report: Report) -> None:
    arms = [BASE, *DENSE, *LOOKUPS, *READS, *OURS]
    assert [(t.width, t.tokens, t.arm) for t in report.timings] == [
        (width, tokens, arm) for width in (64, 128) for tokens in (1, 4) for arm in arms
    ]
    for timing in report.timings:
        assert 0 < timing.seconds <= timing.median
        assert math.isfinite(timing.of_copy)
    assert report.copy_bandwidth > 1e8
    assert report.environment["threads"] == 1
    assert report.environment["backend"] == backends.name_for("cpu")


def test_speedups_are_against_linear_of_the_same_size(report: Report) -> None:
    base = {(t.width, t.tokens): t.seconds for t in report.timings if t.arm == BASE}
    for timing in report.timings:
        assert timing.speedup == pytest.approx(base[timing.width, timing.tokens] / timing.seconds)


def test_bytes_are_the_weights_or_the_fetched_rows(report: Report) -> None:
    """A dense layer reads its matrix once however many tokens; a look-up K rows of h a token."""
    read = {t.arm: t.bytes_read for t in report.timings if (t.width, t.tokens) == (128, 4)}
    assert read[BASE] == 128 * 128 * 4
    assert read["nn.Linear bfloat16"] == 128 * 128 * 2
    assert read["nn.Linear int8 dynamic"] == 128 * 128
    assert read["kernel float32"] == read[OFFICIAL] == 4 * 16 * 128 * 4
    assert read["module int8"] == read["row sum, no hash int8"] == 4 * 16 * 128
    copied = next(t for t in report.timings if t.arm == "kernel int8")
    assert copied.of_copy == pytest.approx(copied.bytes_read / copied.seconds / report.copy_bandwidth)


def test_progress_counts_widths_and_batch_sizes() -> None:
    seen: list[tuple[int, int]] = []
    bench((64, 128), (1, 2), peers=False, on_progress=lambda *at: seen.append(at), **TINY)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_without_peers_only_linear_is_beside_ours() -> None:
    assert [t.arm for t in bench((64,), (2,), peers=False, **TINY).timings] == [BASE, *OURS]


def test_every_arm_computes_a_layer_s_output() -> None:
    """The look-ups agree with the module; bfloat16 and int8 to their precision."""
    torch.manual_seed(0)
    arms = {arm.name: arm for arm in benchmark._arms(64, 8, "cpu", True, 2**14)}
    x = torch.randn(5, 64)
    with torch.no_grad():
        expected = arms["module float32"].calls[1](x)
        for name in [*LOOKUPS, *OURS]:
            y = arms[name].calls[1](arms[name].prepare(x))
            error = (y - expected).norm() / expected.norm()
            assert error < (1e-5 if "float32" in name else 0.02), name
        dense = arms[BASE].calls[0]
        assert isinstance(dense, nn.Linear)
        for name in DENSE:
            assert arms[name].calls[0](arms[name].prepare(x)).shape == (5, 64)


def test_the_row_sums_read_the_rows_that_the_look_up_fetches() -> None:
    arms = {arm.name: arm for arm in benchmark._arms(64, 8, "cpu", True, 2**14)}
    layer, reads = arms["module float32"].calls[1], arms["row sum, no hash float32"]
    assert isinstance(layer, MemoryLayer)
    x = torch.randn(5, 64)
    codes = layer.hash(x)[0]
    rows = torch.stack([layer.tables[k, codes[:, k]] for k in range(8)])
    torch.testing.assert_close(reads.calls[1](reads.prepare(x)), rows.sum(0))


def test_skewed_input_fetches_one_row_of_each_table_for_two_of_three_tokens() -> None:
    x = benchmark._input(3000, 64, "cpu", skewed=True)
    last = (MemoryLayer(64, 1, 8).hash(x)[0] == 255).all(1)
    assert last.double().mean() == pytest.approx(2 / 3, abs=0.03)
    assert (MemoryLayer(64, 1, 8).hash(x[~last])[0] == 255).double().mean() < 0.01
    assert bench((64,), (3,), peers=False, skewed=True, **TINY).environment["skewed"]


def test_huge_pages_hold_the_tables_of_all_arms() -> None:
    arms = benchmark._arms(64, 8, "cpu", False, 2**14, huge_pages=True)
    layers = [call for arm in arms if arm.name.startswith("module") for call in arm.calls]
    assert all(layer.tables.data_ptr() % 4096 == 0 for layer in layers)
    assert bench((64,), (1,), peers=False, huge_pages=True, **TINY).environment["huge_pages"]


def test_layers_in_rotation_are_twice_the_cache() -> None:
    arms = benchmark._arms(64, 8, "cpu", False, 10 * 64 * 64 * 4)
    assert {len(arm.calls) for arm in arms} == {20}


def test_each_call_has_another_layer_and_another_input(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []
    calls = [lambda x, i=i: seen.append((i, float(x[0, 0]))) for i in range(3)]
    arm = benchmark._Arm(BASE, calls, lambda x: x, lambda _: 1)
    monkeypatch.setattr(benchmark, "WARM_UP", 0)
    benchmark._measure([arm], 4, 1, "cpu", iter(range(10**6)).__next__, 1e-9, 1.0)
    assert [i for i, _ in seen] == [0, 1, 2] * 3
    assert len({value for _, value in seen}) == 9


def test_the_statistics_are_the_lower_third_and_the_median() -> None:
    times = [9.0, 1.0, 5.0, 7.0, 3.0, 2.0, 8.0]
    timing = benchmark._timing(benchmark._Arm("a", [], lambda x: x, lambda n: 10 * n), 4, 2, times, 6.0, 5.0)
    assert (timing.seconds, timing.median, timing.speedup) == (3.0, 5.0, 2.0)
    assert timing.of_copy == pytest.approx(20 / 3.0 / 5.0)


def test_the_peers_have_the_gradients_of_the_layer() -> None:
    torch.manual_seed(0)
    layer = MemoryLayer(12, 5, tau=4, dtype=torch.float64)
    x = torch.randn(7, 12, dtype=torch.float64, requires_grad=True)
    sources = [x, layer.tables, layer.bias]
    expected = torch.autograd.grad(layer(x).sin().sum(), sources)
    for lookup in (embedding_bag_lookup, official_lookup):
        found = torch.autograd.grad(
            lookup(x.unflatten(-1, (3, 4)), layer.tables, layer.bias).sin().sum(), sources
        )
        for ours, theirs in zip(expected, found, strict=True):
            torch.testing.assert_close(ours, theirs)


def timing(tokens: int, speedup: float) -> Timing:
    return Timing(64, tokens, "kernel int8", 1.0, 1.0, speedup, 1, 1.0)


@pytest.mark.parametrize(
    ("speedups", "expected"),
    [((9.0, 2.0, 0.8, 0.5), 64), ((9.0, 2.0, 1.5, 1.1), None), ((0.9, 2.0, 1.1, 0.9), 1024), ((0.5,) * 4, 1)],
)
def test_the_batch_size_where_the_dense_layer_wins_again(
    speedups: tuple[float, ...], expected: int | None
) -> None:
    timings = tuple(timing(n, s) for n, s in zip((1, 8, 64, 1024), speedups, strict=True))
    assert Report({}, 1.0, timings).dense_wins_from(64, "kernel int8") == expected


def test_the_official_formulation_is_left_out_where_it_would_need_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark, "LARGEST_GATHER", 4 * 8 * 64 * 2)  # two tokens of K h float32
    found = bench((64,), (2, 3), **TINY).timings
    assert [t.tokens for t in found if t.arm == OFFICIAL] == [2]


def test_where_the_load_cannot_be_told_it_is_left_out(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no `os.getloadavg`."""
    monkeypatch.delattr("os.getloadavg", raising=False)
    known = benchmark._environment("cpu", 1)
    assert known.keys() == report.environment.keys() - {"load", "huge_pages", "skewed"}


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    bench((64,), (1,), peers=False, threads=before + 1, **TINY)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (60,)}, "in_features is 60, which tau = 8 does not divide"),
        ({"widths": ()}, "widths"),
        ({"tokens": (0,)}, "positive"),
        ({"threads": 0}, "threads is 0"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"device": "tpu"}, "may be 'cpu' or 'cuda'"),
        ({"widths": (65536,)}, "GiB are free"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(MemoryFormerError) as refused:
        bench(**{"widths": (64,), "tokens": (1,)} | arguments)
    assert message in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(MemoryFormerError, match="no CUDA device"):
        bench((64,), (1,), device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_is_measured() -> None:
    arms = [t.arm for t in bench((64,), (1,), device="cuda", **TINY).timings]
    assert arms == [BASE, "nn.Linear bfloat16", *LOOKUPS, *READS, *OURS]
