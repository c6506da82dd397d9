"""How the tables are used: which rows are hit how often, and how often another precision hits others.

Figure 4 of the paper shows buckets that are "generally uniform"; with a small vocabulary they are far from
it. With p_r the share of the tokens that fetch row r of a table of 2**tau rows, and c_r their number:

    entropy          -Σ_r p_r log2 p_r / tau       1 if all rows are used alike, 0 if one takes everything
    dead rows        rows that no token fetched
    largest share    max_r p_r
    collision rate   Σ_r c_r (c_r - 1) / (N (N - 1)): the chance that two of the N tokens share a row; 2**-tau
                     if all are used alike
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError
from memoryformer.functional import hash_codes
from memoryformer.layers import LookupLayer, chunked


@dataclass(frozen=True)
class BucketStats:
    """The use of one layer's K tables; every result has one number a table.

    `counts` int64 [K, 2**tau], on the CPU: tokens that fetched each row. `flip_rate` float64 [K]: the share
    of tokens that fetched another row in the model that was compared; None if none was.
    """

    counts: Tensor
    flip_rate: Tensor | None = None

    @property
    def tokens(self) -> int:
        """N, the number of tokens that were hashed."""
        return int(self.counts[0].sum())

    @property
    def tau(self) -> int:
        """Bits of a row number."""
        return self.counts.shape[1].bit_length() - 1

    @property
    def entropy(self) -> Tensor:
        """Entropy over tau, float64 [K] in [0, 1]."""
        share = self.counts.double() / self.tokens
        return torch.special.entr(share).sum(1) / (self.tau * math.log(2))

    @property
    def dead_rows(self) -> Tensor:
        """Rows that no token fetched, int64 [K]."""
        return (self.counts == 0).sum(1)

    @property
    def max_share(self) -> Tensor:
        """The share of tokens that the most used row takes, float64 [K]."""
        return self.counts.amax(1).double() / self.tokens

    @property
    def collision_rate(self) -> Tensor:
        """The chance that two tokens fetch the same row, float64 [K]; NaN for a single token."""
        counts = self.counts.double()
        return (counts * (counts - 1)).sum(1) / (self.tokens * (self.tokens - 1))

    def summary(self) -> dict[str, float]:
        """Means over the tables, and the largest share of any; dead rows as a share of all rows."""
        found = {
            "entropy": float(self.entropy.mean()),
            "dead_rows": float(self.dead_rows.double().mean()) / self.counts.shape[1],
            "max_share": float(self.max_share.max()),
            "collision_rate": float(self.collision_rate.mean()),
        }
        return found if self.flip_rate is None else found | {"flip_rate": float(self.flip_rate.mean())}


def bucket_stats(
    model: nn.Module,
    input_ids: Tensor,
    *,
    other: torch.dtype | nn.Module | None = None,
    batch_size: int = 8,
) -> dict[str, BucketStats]:
    """Run `model(input_ids)` without gradients and count the rows that its memory layers fetch.

    Any module of torch that contains `MemoryLayer`s, also quantized ones, will do; the results have the
    layers' names from `named_modules`. `input_ids` (or what else the model takes first) is cut into batches
    of `batch_size` along its first dimension. Of a transformers model only the part below the head runs.

    `other` measures flipped codes (section 2.2): a dtype, for a copy of the model in that dtype, or another
    model with the same layers, such as its int8 form or the same on another device. One flip near zero
    changes what later layers see, so the rate grows with depth.

    Raises `MemoryFormerError` if there is no input, the model has no memory layer or one that its forward
    never calls, or `other` does not have the same layers.
    """
    layers = memory_layers(model)
    if not input_ids.numel():
        raise MemoryFormerError(f"the input is {list(input_ids.shape)}: no token to count")
    dtype = other if isinstance(other, torch.dtype) else input_ids.dtype
    compared = copy.deepcopy(model).to(other) if isinstance(other, torch.dtype) else other
    if compared is not None and memory_layers(compared).keys() != layers.keys():
        raise MemoryFormerError("the other model does not have the same memory layers: nothing to compare")
    counts = {name: torch.zeros(layer.num_chunks, 2**layer.tau).long() for name, layer in layers.items()}
    flips = {name: torch.zeros(layer.num_chunks).long() for name, layer in layers.items()}
    for batch in input_ids.split(batch_size):
        codes = _codes(model, batch)
        for name, layer in layers.items():
            counts[name] += _count(codes[name], 2**layer.tau).cpu()
        if compared is not None:
            cast = batch.to(dtype) if batch.is_floating_point() else batch
            for name, theirs in _codes(compared, cast).items():
                flips[name] += (codes[name].to(theirs.device) != theirs).sum(0).cpu()
    rates = {name: flips[name] / counts[name][0].sum().double() for name in layers}
    return {name: BucketStats(counts[name], None if compared is None else rates[name]) for name in layers}


class BucketMonitor:
    """Samples bucket use while a model trains: every `every`-th pass through each layer is counted.

        monitor = BucketMonitor(model, every=100)
        ...                         # train
        log(monitor.summary())      # {"model.layers.0.mlp.layer1/entropy": 0.93, ...}
        monitor.reset()             # the next summary is about later steps only

    Passes in evaluation mode are not counted. Recomputation under activation checkpointing counts as a
    pass, and each process counts its own tokens. Raises `MemoryFormerError` if the model has no memory
    layer, or for `every` below 1.
    """

    def __init__(self, model: nn.Module, every: int = 100) -> None:
        if every < 1:
            raise MemoryFormerError(f"every is {every}; it must be at least 1")
        self.every = every
        self._passes: dict[str, int] = {}
        self._counts: dict[str, Tensor] = {}
        self._hooks = [
            layer.register_forward_pre_hook(self._hook(name), with_kwargs=True)
            for name, layer in memory_layers(model).items()
        ]

    def _hook(self, name: str) -> Any:
        def hook(layer: LookupLayer, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
            if not layer.training:
                return
            passes = self._passes[name] = self._passes.get(name, 0) + 1
            if (passes - 1) % self.every == 0:
                counts = _count(_hash(layer, *args, **kwargs), 2**layer.tau)
                self._counts[name] = self._counts.get(name, 0) + counts

        return hook

    def stats(self) -> dict[str, BucketStats]:
        """What was counted since the last `reset`; empty before the first pass."""
        return {name: BucketStats(counts.cpu()) for name, counts in self._counts.items()}

    def summary(self) -> dict[str, float]:
        """`BucketStats.summary` of every layer in one flat dict for any logger: "<layer>/<quantity>"."""
        return {
            f"{name}/{quantity}": value
            for name, stats in self.stats().items()
            for quantity, value in stats.summary().items()
        }

    def reset(self) -> None:
        """Forget what was counted; the next pass is counted again."""
        self._passes.clear()
        self._counts.clear()

    def remove(self) -> None:
        """Stop watching the model; what was counted stays."""
        while self._hooks:
            self._hooks.pop().remove()


def memory_layers(model: nn.Module) -> dict[str, LookupLayer]:
    """The memory layers of any model by their names in `named_modules`; "" is the model itself.

    Raises `MemoryFormerError` if there is none.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, LookupLayer)}
    if not found:
        raise MemoryFormerError(f"{type(model).__name__} has no MemoryLayer")
    return found


@torch.no_grad()
def _codes(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """The rows that each layer fetches for one batch, int64 [N, K]."""
    layers = memory_layers(model)
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def watch(name: str) -> Any:
        return lambda layer, args, kwargs: seen[name].append(_hash(layer, *args, **kwargs))

    hooks = [layer.register_forward_pre_hook(watch(name), with_kwargs=True) for name, layer in layers.items()]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        _trunk(model, layers)(batch.to(next(iter(layers.values())).tables.device))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    for name, codes in seen.items():
        if not codes:
            raise MemoryFormerError(
                f"the forward of {type(model).__name__} never calls its memory layer {name!r}; of a compiled "
                "model give the original"
            )
    return {name: torch.cat(codes) for name, codes in seen.items()}


def _trunk(model: nn.Module, layers: dict[str, LookupLayer]) -> nn.Module:
    """The model without its head, whose logits nobody reads, where all layers are below the head."""
    trunk = getattr(model, "base_model", model)
    below = set(trunk.modules())
    return trunk if all(layer in below for layer in layers.values()) else model


def _hash(layer: LookupLayer, x: Tensor) -> Tensor:
    x = getattr(x, "full_tensor", lambda: x)()  # of a layer that is split over processes
    return hash_codes(chunked(x.detach(), layer)).reshape(-1, layer.num_chunks)


def _count(codes: Tensor, rows: int) -> Tensor:
    """Codes [N, K] -> counts [K, rows]."""
    chunks = codes.shape[1]
    flat = codes + rows * torch.arange(chunks, device=codes.device)
    return torch.bincount(flat.flatten(), minlength=chunks * rows).view(chunks, rows)
