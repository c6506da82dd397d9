"""Every test of the kernels runs with each instruction set of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from memoryformer_cpu import native

HERE = native.INSTRUCTION_SETS[: native.library().memoryformer_best_instruction_set() + 1]


@pytest.fixture(params=HERE)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the instruction set in use."""
    before = native.instruction_set()
    native.use(request.param)
    yield request.param
    native.use(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
