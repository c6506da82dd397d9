"""Memory Layers in the place of `nn.Linear` in somebody else's model: `replace_linear`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from memoryformer.convert.fitting import gaussian_fit
from memoryformer.errors import MemoryFormerError
from memoryformer.flops import table_bytes
from memoryformer.hashing import MAX_TAU, check_score, check_tau
from memoryformer.layers import MemoryLayer
from memoryformer.machine import free_bytes

Model = TypeVar("Model", bound=nn.Module)


def replace_linear(
    model: Model,
    match: str | Sequence[str] = "*.mlp.*",
    tau: int = 8,
    *,
    score: str = "scaled",
    temperature: float = 1.0,
    init: str = "linear",
) -> Model:
    """Put a `MemoryLayer` in the place of every linear layer whose name matches; return the changed model.

    `match` is a shell-style pattern for the names that `model.named_modules()` gives, or several. `nn.Linear`
    and the `Conv1D` of transformers' GPT-2 are replaced; other modules under the names (activations, norms,
    containers) stay. The new layers have the device, dtype and bias of the old ones.

    `init` "linear" starts from the old weights: T[k, c] = alpha Σ_i s_i W_i, the best tables for input of
    independent standard normals (section 2.6; at tau 8 the relative error is 0.57 to 0.68 even so: train
    afterwards, or at least use `fit_tables` with the layer's real input and output). "random" starts as a new
    `MemoryLayer`, for training from scratch.

    A model of transformers notes what was replaced: `save_pretrained` works, and `from_pretrained` once
    `memoryformer.hf` is imported.

    Either all are replaced or nothing is changed. Raises `MemoryFormerError` where a pattern matches no
    linear layer; for a width that tau does not divide, naming the nearest; for a layer that is of a subclass
    of `nn.Linear` (quantised, parametrised, an adapter), shares its weight with another module, or is the
    model itself; for tau outside 1..16, and tables that the free memory of a device does not hold.
    """
    if init not in ("linear", "random"):
        raise MemoryFormerError(f"init is {init!r}; it may be 'linear' or 'random'")
    check_tau(tau)
    check_score(score, temperature)
    chosen = linear_layers(model, match)
    _check_widths(chosen, tau)
    _check_not_shared(model, chosen)
    _check_memory(chosen, tau)
    replaced: dict[nn.Module, MemoryLayer] = {}
    for name, old in chosen.items():
        if old not in replaced:  # one layer may stand under two names
            replaced[old] = _memory_layer(old, tau, score, temperature)
            if init == "linear":
                start_linear(replaced[old], matrix(old), cast(Tensor | None, old.bias))
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, replaced[old])
    _note(model, {name: replaced[old] for name, old in chosen.items()})
    return model


def linear_layers(model: nn.Module, match: str | Sequence[str]) -> dict[str, nn.Module]:
    """The linear layers of a name that matches one of the patterns, by name.

    Raises `MemoryFormerError` for a pattern without any, and for a layer that cannot be replaced as it is.
    """
    patterns = [match] if isinstance(match, str) else list(match)
    modules = dict(model.named_modules(remove_duplicate=False))
    linear = {name: module for name, module in modules.items() if _is_linear(module)}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in linear):
            known = ", ".join(dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in linear))
            raise MemoryFormerError(
                f"no linear layer of {type(model).__name__} has a name that matches {pattern!r}. "
                f"Its linear layers are: {known or 'none'}"
            )
    chosen = {
        name: module
        for name, module in linear.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    for name, module in chosen.items():
        if not name:
            raise MemoryFormerError("the model itself is the linear layer: make a MemoryLayer in its place")
        if isinstance(module, nn.Linear) and type(module) is not nn.Linear:
            raise MemoryFormerError(
                f"{name} is a {type(module).__name__}, not a plain nn.Linear, and may be used otherwise than "
                "by calling it; make it one first (dequantise, merge the adapter, remove the "
                "parametrisation), or leave it out of the pattern"
            )
    return chosen


def matrix(layer: nn.Module) -> Tensor:
    """The weight of a linear layer as [in_features, out_features]."""
    weight = cast(Tensor, layer.weight)
    return weight.t() if isinstance(layer, nn.Linear) else weight  # Conv1D keeps it so


def _is_linear(module: nn.Module) -> bool:
    # transformers' Conv1D is known by name: this module does without transformers
    return isinstance(module, nn.Linear) or (
        type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"
    )


def _check_widths(chosen: dict[str, nn.Module], tau: int) -> None:
    for name, layer in chosen.items():
        width = len(matrix(layer))
        if width % tau:
            below = width // tau * tau
            nearest = " or ".join(str(near) for near in (below, below + tau) if near)
            fitting = ", ".join(str(bits) for bits in range(1, MAX_TAU + 1) if width % bits == 0)
            raise MemoryFormerError(
                f"{name} takes {width} numbers, which tau {tau} does not divide. The nearest widths that it "
                f"divides: {nearest}; tau for {width}: {fitting}"
            )


def _check_not_shared(model: nn.Module, chosen: dict[str, nn.Module]) -> None:
    replaced = set(chosen.values())
    others = {
        id(parameter): name
        for name, module in model.named_modules(remove_duplicate=False)
        if module not in replaced
        for parameter in module.parameters(recurse=False)
    }
    for name, layer in chosen.items():
        shared = others.get(id(layer.weight))
        if shared is not None:
            raise MemoryFormerError(
                f"{name} shares its weight with {shared}, which would then go on alone; leave it out of the "
                "pattern"
            )


def _check_memory(chosen: dict[str, nn.Module], tau: int) -> None:
    needed: Counter[torch.device] = Counter()
    for layer in dict.fromkeys(chosen.values()):
        weight = matrix(layer)
        needed[weight.device] += table_bytes(weight.shape[0], weight.shape[1], tau, weight.dtype)
    for device, size in needed.items():
        free = free_bytes(device)
        if free is not None and size > free:
            raise MemoryFormerError(
                f"the tables need {size / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free on {device}: at "
                f"tau {tau} they are {2**tau / tau:.0f} times the matrix. Replace fewer layers, choose a "
                "smaller tau, or give the model in bfloat16"
            )


def _memory_layer(old: nn.Module, tau: int, score: str, temperature: float) -> MemoryLayer:
    weight = matrix(old)
    new = MemoryLayer(
        weight.shape[0],
        weight.shape[1],
        tau,
        score=score,
        temperature=temperature,
        bias=old.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    return new.train(old.training)


@torch.no_grad()
def start_linear(layer: MemoryLayer, weight: Tensor, bias: Tensor | None) -> None:
    """Give a new layer the best tables of x W + bias for Gaussian x (`replace_linear`); W is [in, out]."""
    alpha = gaussian_fit(layer.tau, layer.score, layer.temperature).alpha
    signs = alpha * _patterns(layer.tau, weight.device)
    for tables, chunk in zip(layer.tables.unbind(), weight.unflatten(0, (-1, layer.tau)), strict=True):
        tables.copy_(signs @ chunk.to(signs.dtype))
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)


def _note(model: nn.Module, layers: dict[str, MemoryLayer]) -> None:
    """For save_pretrained, where the model is one of transformers."""
    if not any(kind.__module__ == "transformers.modeling_utils" for kind in type(model).__mro__):
        return
    from memoryformer.hf.saving import record

    kept = ("in_features", "out_features", "tau", "score", "temperature")
    record(
        model,
        linear={
            name: {key: getattr(layer, key) for key in kept} | {"bias": layer.bias is not None}
            for name, layer in layers.items()
        },
    )


def _patterns(tau: int, device: torch.device) -> Tensor:
    """[2**tau, tau]: row c has +1 where c has a bit, the highest first, and -1 where not."""
    bits = torch.arange(2**tau, device=device)[:, None] >> torch.arange(tau - 1, -1, -1, device=device) & 1
    return (2 * bits - 1).float()
