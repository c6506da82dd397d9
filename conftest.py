"""What holds for all tests, and has to be settled before any of them."""

from __future__ import annotations

import os
import random

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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test draws the same numbers, alone, in any order and on any worker; before its fixtures draw."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
