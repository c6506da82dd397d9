"""Lets verl's workers run without an accelerator, which verl itself does not: for the tests, nothing else.

verl has a registry of platforms, and registers its FSDP engines for "cuda" and "npu". Imported beside verl
(VERL_USE_EXTERNAL_MODULES, in Ray's workers too), this makes the CPU a platform whose collectives are
gloo's. Ray is told of GPUs that are not there.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
import verl.utils.distributed as distributed
import verl.utils.fsdp_utils as fsdp_utils
from verl.plugin.platform.platform_cuda import PlatformCUDA
from verl.plugin.platform.platform_manager import set_platform

os.environ["VERL_ENGINE_DEVICE"] = "cuda"  # by this name verl finds its engines


class _NoDevice:
    """What verl asks torch.cuda for: memory, streams and caches, of which there are none."""

    def mem_get_info(self, *_: Any) -> tuple[int, int]:
        return 0, 1

    def get_device_name(self, *_: Any) -> str:
        return "CPU"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: 0


class PlatformCPU(PlatformCUDA):
    device_name = "cpu"
    vendor_name = "none"
    device_module = _NoDevice()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return True

    def current_device(self) -> Any:
        return torch.device("cpu")

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        pass

    def manual_seed_all(self, seed: int) -> None:
        pass

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def communication_backend_name(self) -> str:
        return "gloo"


set_platform(PlatformCPU())
# verl asks for "cpu:gloo" and one more backend for the device.
distributed.initialize_global_process_group_ray = partial(
    distributed.initialize_global_process_group_ray, backend="gloo"
)
# verl keeps the reference's weights in pinned memory, which needs CUDA; here all weights are on the CPU.
fsdp_utils.CPUOffloadPolicy = lambda **_: None
