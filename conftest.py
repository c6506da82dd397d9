"""What holds for all tests, and has to be settled before any of them."""

from __future__ import annotations

import os

import hypothesis
import torch

# Triton settles on import whether kernels are interpreted, and libraries import it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A deadline would measure the machine: an example that takes 7 ms took 360 on a busy one.
hypothesis.settings.register_profile("tenfold", deadline=None)
hypothesis.settings.load_profile("tenfold")
