"""The GPU benchmark's peer and its command line, which need no GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from implicit_prm_triton import reference

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("implicit_prm_triton_gpu_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_peer_by_chunks_computes_the_same(gpu: ModuleType) -> None:
    inputs = torch.randn(1100, 4), torch.randn(5, 4), torch.randint(5, (1100,))
    torch.testing.assert_close(gpu.by_chunks(*inputs), reference.linear_log_probs(*inputs))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "needs a CUDA GPU; torch sees none here. Nothing was measured." in capsys.readouterr().err


def test_a_mistake_on_the_command_line(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--repeats", "0"])
    assert "must be at least 1" in capsys.readouterr().err
