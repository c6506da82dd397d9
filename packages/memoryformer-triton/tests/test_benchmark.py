"""The GPU benchmark's arithmetic, its peer in PyTorch, and its command line, which need no GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from memoryformer_triton import reference

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memoryformer_triton_gpu_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the names in their annotations
    spec.loader.exec_module(module)
    return module


def test_bytes_of_a_layer_are_its_rows(gpu: ModuleType) -> None:
    """d = h = 1024, 16,384 tokens, bfloat16: 128 rows of 2 KB a token, 4.3 GB."""
    assert gpu.gathered_bytes(16_384, 1024, 2) == 16_384 * 128 * 2048 == 4_294_967_296


def test_the_peer_computes_the_same(gpu: ModuleType) -> None:
    z, tables = torch.randn(4, 3, 8), torch.randn(3, 256, 16)
    wanted = reference.lookup(z, tables, None, None, "scaled", 1.0)
    torch.testing.assert_close(gpu.by_embedding_bag(z, tables), wanted, atol=1e-5, rtol=1e-5)


def test_a_rate_in_a_row(gpu: ModuleType) -> None:
    assert "250 GB/s" in str(gpu.Measured("forward", "s", "p", 2e-3, 0.0, bytes=500_000_000))
    assert gpu.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0)


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
