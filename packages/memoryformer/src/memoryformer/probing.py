"""Can this layer be a Memory Layer? `probe` fits one to each linear layer, on the user's own text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memoryformer.convert.fitting import fit_tables, gaussian_fit
from memoryformer.convert.linear import linear_layers, matrix, start_linear
from memoryformer.errors import MemoryFormerError
from memoryformer.layers import MemoryLayer

KEPT_BYTES = 2**31  # inputs of layers held at a time
BATCH_TOKENS = 4096
TOLERANCE = 1e-3  # of the fit; the errors' digits that are shown need no more
DROP_IN = 0.1  # a relative error below which a layer may be swapped without training
REPLACEABLE = math.sqrt(0.5)  # half of the variance of the output explained


@dataclass(frozen=True)
class LayerFit:
    """How well a Memory Layer stands for one linear layer.

    Errors are ||fitted - y|| / ||y - mean(y)||, so that 1 is no better than a constant: `fitted` on the
    tokens fitted to, `held_out` on others. Their gap is what the tables learnt by heart. `gaussian` is the
    least error that tables can reach on isotropic Gaussian input, sqrt(1 - explained) of section 2.6.
    `reason` says why a layer was not fitted, where the errors are NaN.
    """

    name: str
    in_features: int
    out_features: int
    fitted: float
    held_out: float
    gaussian: float
    reason: str = ""


@torch.no_grad()
def probe(
    model: nn.Module,
    input_ids: Tensor,
    *,
    match: str | Sequence[str] = "*",
    tau: int = 8,
    score: str = "scaled",
    temperature: float = 1.0,
    held_out: float = 0.25,
    columns: int = 64,
    ridge: float = 1.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[LayerFit]:
    """Fit a Memory Layer to every linear layer of `model` whose name matches; the model stays as it is.

    `input_ids` [sequences, length] are put through the model; the last share `held_out` of the sequences
    judges the fit to the others, which starts from the layer's own weights (see `fit_tables`). Of each
    layer's outputs at most `columns` are fitted, evenly spread, which costs little precision (the error is a
    mean over outputs) and much less time. Each layer sees the input that the unchanged model gives it: errors
    of several layers add up where all are replaced.
    `on_progress` gets the steps done and their number: a step is a layer fitted, or a batch of `BATCH_TOKENS`
    put through the model, which is done for as many layers at a time as `KEPT_BYTES` holds the inputs of.

    Raises `MemoryFormerError` for fewer than two sequences, a `held_out` that leaves nothing on one side,
    `columns` below 1, and a pattern that matches nothing.
    """
    layers = linear_layers(model, match)
    options = {"tau": tau, "score": score, "temperature": temperature}
    gaussian = math.sqrt(1 - gaussian_fit(tau, score, temperature).explained)
    sequences = len(input_ids)
    judged = round(held_out * sequences)
    if not 0 < judged < sequences:
        raise MemoryFormerError(
            f"held_out {held_out} of {sequences} sequences leaves nothing to fit or nothing to judge by"
        )
    if columns < 1:
        raise MemoryFormerError(f"columns is {columns}; it must be at least 1")
    groups = list(_groups(layers, input_ids.numel()))
    batches = input_ids.split(max(1, BATCH_TOKENS // input_ids.shape[1]))
    steps = len(groups) * len(batches) + len(layers)
    done = itertools.count(1)

    def step_done() -> None:
        if on_progress is not None:
            on_progress(next(done), steps)

    found: list[LayerFit] = []
    for names in groups:
        inputs = _inputs(model, {name: layers[name] for name in names}, batches, step_done)
        for name in names:
            errors, reason = (math.nan, math.nan), ""
            try:
                errors = _errors(
                    inputs.pop(name), matrix(layers[name]), judged / sequences, columns, ridge, options
                )
            except MemoryFormerError as error:
                reason = str(error)
            rows, width = matrix(layers[name]).shape
            found.append(LayerFit(name, rows, width, *errors, gaussian, reason))
            step_done()
    return found


def _groups(layers: dict[str, nn.Module], tokens: int) -> Iterator[list[str]]:
    """The names, in groups whose inputs fit in `KEPT_BYTES`: a forward pass of the model for each group."""
    group: list[str] = []
    kept = 0
    for name, layer in layers.items():
        size = tokens * matrix(layer).shape[0] * torch.float32.itemsize
        if group and kept + size > KEPT_BYTES:
            yield group
            group, kept = [], 0
        group.append(name)
        kept += size
    yield group


def _inputs(
    model: nn.Module, layers: dict[str, nn.Module], batches: Sequence[Tensor], step_done: Callable[[], None]
) -> dict[str, Tensor]:
    """What the layers are called with, [tokens, in_features] in float32; held once where layers share it."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            (x,) = *args, *kwargs.values()  # by whichever name: nn.Linear and Conv1D take nothing else
            seen[name].append(x.flatten(0, -2))

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name), with_kwargs=True) for name, layer in layers.items()]
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        for batch in batches:
            model(batch.to(device))
            step_done()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    whole: dict[tuple[Any, ...], Tensor] = {(): torch.empty(0)}  # by where and how the parts lie
    found: dict[str, Tensor] = {}
    for name in layers:
        parts = seen.pop(name)
        place = tuple((part.data_ptr(), part.shape, part.stride()) for part in parts)
        if place not in whole:
            whole[place] = torch.cat(parts).float()
        found[name] = whole[place]
    return found


def _errors(
    x: Tensor, weight: Tensor, judged: float, columns: int, ridge: float, options: dict[str, Any]
) -> tuple[float, float]:
    """The errors of a Memory Layer fitted to x W, on the tokens fitted to and on the last share `judged`."""
    first = len(x) - round(len(x) * judged)
    if not 0 < first < len(x):
        raise MemoryFormerError("this text does not reach it")
    shown = torch.linspace(0, weight.shape[1] - 1, min(columns, weight.shape[1])).long()
    y = x @ weight[:, shown].to(x.dtype)
    layer = MemoryLayer(weight.shape[0], len(shown), device=x.device, **options)
    start_linear(layer, weight[:, shown], None)
    fit_tables(layer, x[:first], y[:first], ridge=ridge, tolerance=TOLERANCE)
    fitted, held_out = (
        float((layer(x) - y).norm() / (y - y.mean(0)).norm())
        for x, y in ((x[:first], y[:first]), (x[first:], y[first:]))
    )
    return fitted, held_out


def guidance(fits: Sequence[LayerFit]) -> str:
    """What the errors mean for a person who wants to replace these layers."""
    measured = [fit for fit in fits if not fit.reason]
    if not measured:
        return "None of the layers could be fitted."
    near = sum(fit.held_out < DROP_IN for fit in measured)
    half = sum(fit.held_out < REPLACEABLE for fit in measured)
    return (
        f"Of {len(measured)} layers, a Memory Layer explains at least half of the output's variance for "
        f"{half} (error below {REPLACEABLE:.2f}), and could be swapped as it is for {near} (error below "
        f"{DROP_IN}). A Memory Layer is a new non-linear layer, not a compression of a trained matrix: on "
        f"isotropic Gaussian input no tables have an error below {measured[0].gaussian:.2f}. Errors add up "
        "over the layers: plan to train after replacing, or train with Memory Layers from scratch. Where the "
        "error on the fitted tokens is far below the held-out one, more text would help."
    )
