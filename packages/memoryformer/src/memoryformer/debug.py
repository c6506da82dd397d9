"""Where did NaN come from? Tables never hide it: NaN in gives NaN out, never a row out of range."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from memoryformer.errors import MemoryFormerError


def check(model: nn.Module) -> Watch:
    """Check all weights of `model` at once, and all outputs of its layers inside a `with`.

        check(model)                # weights only
        with check(model):
            model(input_ids)        # stops at the first layer whose output is not finite

    Any module of torch will do. Raises `MemoryFormerError` naming the first parameter or buffer, later the
    first layer in the order of computation, that holds NaN or infinity. What the message cannot see is the
    backward pass: `torch.autograd.set_detect_anomaly(True)` does.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in named:
        if found := _not_finite(tensor):
            raise MemoryFormerError(f"the weights {name!r} hold {found}")
    return Watch(model)


class Watch:
    """What `check` returns: watches the outputs of all layers inside a `with`."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._hooks: list[RemovableHandle] = []
        self._last = "the input of the model"

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            label = f"{name or 'the model'} ({type(module).__name__})"
            self._hooks.append(module.register_forward_hook(self._hook(label), with_kwargs=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _hook(self, label: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            # Children finish before their parents: the first to be seen is the innermost.
            found = next(filter(None, map(_not_finite, _tensors(output))), None)
            if found is None:
                self._last = label
                return
            came = next(filter(None, map(_not_finite, _tensors((args, kwargs)))), None)
            if came is None:
                raise MemoryFormerError(f"the first layer whose output is not finite is {label}: {found}")
            raise MemoryFormerError(
                f"the input of {label} is not finite already: {came}; this arose outside any layer, after "
                f"{self._last}"
            )

        return hook


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _not_finite(tensor: Tensor) -> str | None:
    if not tensor.is_floating_point() or torch.isfinite(tensor).all():
        return None
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    first = (~torch.isfinite(tensor)).nonzero()[0].tolist()
    return f"{nan:,} NaN and {infinite:,} infinite of {tensor.numel():,} numbers, the first at {first}"
