"""Triton settles on import whether kernels are interpreted, and libraries import it: so before any test."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
