"""A model's weights as an engine loads them: whole, with its adapters merged, under a checkpoint's names."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.weak import WeakIdKeyDictionary

from implicit_prime.errors import PrimeError


def bare_model(model: nn.Module) -> nn.Module:
    """The model itself, out of DDP's and torch.compile's wrappers; one sharded by FSDP2 stays sharded."""
    found: nn.Module = extract_model_from_parallel(model, keep_torch_compile=False)
    return found


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 holds only a part of the weights in this process."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


@torch.no_grad()
def whole_weights(model: nn.Module, *, untied: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every weight, one at a time; tied ones once, or `untied` under each of their names.

    Shards of FSDP2 are gathered, so that all processes must go through all of them. PEFT's active adapters
    are merged into copies of the layers: merging in place and back would round the base model's weights.

    Raises `PrimeError` for adapters that cannot be merged.
    """
    # Weak, as an adapter's merged copy is gone before the next one is made, which may get its id.
    yield from _walk(base_model(model), "", None if untied else WeakIdKeyDictionary())


def base_model(model: nn.Module) -> nn.Module:
    """The model of transformers, out of PEFT's wrapper too; its layers keep their adapters."""
    bare: Any = bare_model(model)
    return cast(nn.Module, bare.get_base_model()) if hasattr(bare, "get_base_model") else bare


def _walk(module: nn.Module, prefix: str, seen: WeakIdKeyDictionary | None) -> Iterator[tuple[str, Tensor]]:
    module = _without_adapters(module, prefix)
    for name, parameter in module.named_parameters(recurse=False):
        if seen is not None:
            if parameter in seen:
                continue
            seen[parameter] = True
        value = parameter.detach()
        yield prefix + name, value.full_tensor() if isinstance(value, DTensor) else value
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}{name}.", seen)


def _without_adapters(module: nn.Module, prefix: str) -> nn.Module:
    """What the module was before PEFT wrapped it, with the weights that it has now."""
    if "peft" not in sys.modules:
        return module
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    layer: Any = module
    if isinstance(module, ModulesToSaveWrapper):
        active = [] if layer.disable_adapters else layer.active_adapters
        saved: nn.Module = layer.modules_to_save[active[0]] if active else layer.original_module
        return saved
    if not isinstance(module, BaseTunerLayer):
        return module
    if layer.merged or layer.disable_adapters:
        return cast(nn.Module, layer.get_base_layer())
    try:
        merged = copy.deepcopy(layer)
        merged.merge()
    except (NotImplementedError, ValueError) as error:
        raise PrimeError(
            f"the adapter of {prefix.rstrip('.')!r} cannot be merged into its layer, as the rollout engine "
            f"needs it: {error}; plain LoRA can"
        ) from error
    return cast(nn.Module, merged.get_base_layer())
