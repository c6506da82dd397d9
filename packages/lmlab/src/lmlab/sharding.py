"""FSDP2 with processes that have no GPU, so that the scale-out path can be tested anywhere."""

from __future__ import annotations

import os

from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin


def shard_without_accelerator(accelerator: Accelerator) -> None:
    """Turn on the FSDP that `accelerate launch` asked for, where accelerate itself does not.

    accelerate 1.15 reads the FSDP settings on every kind of accelerator device, but with processes on the CPU
    (gloo) it drops them and falls back to DistributedDataParallel without a word (`AcceleratorState.__init__`
    lists the kinds and leaves MULTI_CPU out). torch's `fully_shard` itself works on the CPU, so the state is
    given here what it would have had on GPUs. Does nothing in any other case.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and accelerator.distributed_type == DistributedType.MULTI_CPU:
        plugin = FullyShardedDataParallelPlugin()  # from the launcher's environment, as accelerate does
        if accelerator.mixed_precision != "no":
            plugin.set_mixed_precision(accelerator.mixed_precision)
        accelerator.state.fsdp_plugin = plugin
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
