"""Shared by the tests: one thread, as tiny models on busy cores are many times slower with two."""

import torch

torch.set_num_threads(1)
