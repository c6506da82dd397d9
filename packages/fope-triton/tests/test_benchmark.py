"""The GPU benchmark's arithmetic and command line, which need no GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fope_triton_gpu_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the names in their annotations
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("group", "head_dim", "kept", "expected"),
    [(1, 64, 16, 512 + 128), (1, 128, 31, 1024 + 248), (16, 128, 45, 8704 + 360)],
)
def test_bytes_of_a_rotation_a_token_and_kv_head(
    gpu: ModuleType, group: int, head_dim: int, kept: int, expected: int
) -> None:
    """2(G+1)·d·2 for q and k, read and written, and 2·R·4 for the tables, which a batch shares."""
    assert gpu.rotation_bytes(1, 1, group, 1, head_dim, kept) == expected
    whole = gpu.rotation_bytes(8, 100, 4 * group, 4, head_dim, kept)
    assert whole == 4 * 100 * (8 * (expected - 8 * kept) + 8 * kept)


def test_flops_of_attention_are_the_products(gpu: ModuleType) -> None:
    """QKᵀ and PV, 2·T²·d each; the causal half. Backward: the scores again, dV, dP, dQ, dK."""
    full = 3 * 4 * (2 * 16 * 16 * 64)  # one product, batch 3, four heads
    assert gpu.attention_flops(3, 16, 4, 64, backward=False) == 2 * full // 2
    assert gpu.attention_flops(3, 16, 4, 64, backward=True) == 5 * full // 2


def test_bytes_of_decoding_are_the_cache(gpu: ModuleType) -> None:
    cache = torch.empty(2, 3, 1000, 4, 128, dtype=torch.bfloat16)
    assert gpu.decode_bytes(3, 1000, 4, 128) == cache.nbytes


def test_forward_is_timed_as_in_inference(gpu: ModuleType) -> None:
    """With a gradient to come, another operation would run, which turns and keeps q and k beforehand."""
    x = torch.ones(2, requires_grad=True)
    assert gpu.without_gradient(lambda: 2 * x)().grad_fn is None
    assert (2 * x).grad_fn is not None


def test_no_peer_of_attention_copies_its_inputs_first(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are [B, T, heads, d] in memory, so what rotation takes, [B·T, heads, d], is a view of them."""
    taken: list[torch.Tensor] = []
    monkeypatch.setattr(gpu, "normal", lambda *shape: torch.empty(shape, device="meta"))
    monkeypatch.setattr(gpu, "tables", lambda *_: (None, None))
    monkeypatch.setattr(gpu, "attention_peers", lambda q, k, v, *_: taken.extend([q, k, v]) or {})
    assert list(gpu.attention(4)) == []
    assert taken
    for x in taken:
        assert x.requires_grad
        assert x.transpose(1, 2).is_contiguous()


def test_median_and_interquartile_range(gpu: ModuleType) -> None:
    assert gpu.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0)


def test_rates_in_a_row(gpu: ModuleType) -> None:
    assert "250 GB/s" in str(gpu.Measured("rotation", "s", "p", 2e-3, 0.0, bytes=500_000_000))
    assert "1.5 TFLOP/s" in str(gpu.Measured("forward", "s", "p", 2.0, 0.0, flops=3_000_000_000_000))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "needs a CUDA GPU; torch sees none here. Nothing was measured." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--repeats", "3"], "quartiles need at least 4"), (["--only", "other"], "invalid choice: 'other'")],
)
def test_mistakes_on_the_command_line(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(arguments)
    assert message in capsys.readouterr().err


def test_what_is_measured_can_be_chosen(gpu: ModuleType) -> None:
    options = gpu.parse(["--only", "decode", "--repeats", "9", "--json", "x.json"])
    assert (options.only, options.repeats, options.json) == (["decode"], 9, Path("x.json"))
    assert gpu.parse([]).only == ["rotation", "attention", "decode"]
