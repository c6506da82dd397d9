"""What holds for all tests, and has to be settled before any of them."""

from __future__ import annotations

import gc
import os
import random
import sys

# One thread each, also in processes that a test starts: tests run side by side, a processor each.
# Settled before NumPy and torch are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
import torch

# Triton settles on import whether kernels are interpreted, and libraries import it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A deadline would measure the machine: an example that takes 7 ms took 360 on a busy one.
# Derandomised, as everything else here: the same commit gives the same verdict, wherever and however often.
hypothesis.settings.register_profile("tenfold", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tenfold")


def pytest_collection() -> None:
    """Collecting makes a million objects and hardly any garbage: no time is spent looking for it."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor later among those that were there by then: it was a tenth of the time of the tests."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test draws the same numbers, alone, in any order and on any worker; before its fixtures draw."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def own_accelerator() -> None:
    """A file's first Accelerator settles the precision of the process: the next file settles its own."""
    if accelerate := sys.modules.get("accelerate"):
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.hookimpl(tryfirst=True)  # before those of slow tests that were not asked for are taken out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: with several processes, the last minutes are then of short files."""
    marks = ("slow", "long")
    slow = {item.path for item in items if any(map(item.get_closest_marker, marks))}
    items.sort(key=lambda item: item.path not in slow)
