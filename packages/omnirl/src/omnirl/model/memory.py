"""What a model remembers of B histories: plain dicts and lists of tensors, one row a history.

    tokens  (B,) int64            how many tokens a row has seen
    config  () int64              which model config it belongs to
    used    () int64              filled places of the attention caches (attention only)
    last    {name: (B,)}          the last step (layout "fused" only)
    layers  [{name: (B, ...)}]    keys and values (B, H, places, D), or the state of a recurrent mixer
    open    (B,) int64            states that wait for their action, between `policy` and `commit`

A row's own keys are the last `tokens` of the `used` places, so rows may differ in length, and a row is
emptied by setting its `tokens` to 0. The step-wise functions of the model write into a cache's free places:
`fork` a memory to go on from it twice.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from omnirl.errors import OmniRLError
from omnirl.model.attention import grow
from omnirl.model.config import OmniRLConfig

Memory = dict[str, Any]


def fork(memory: Memory) -> Memory:
    """A copy that shares nothing with `memory`."""
    return _map(memory, Tensor.clone)


def detach(memory: Memory) -> Memory:
    """The same numbers, cut off from the graph that made them (section 2.7)."""
    return _map(memory, Tensor.detach)


def select_rows(memory: Memory, rows: Tensor | Sequence[int]) -> Memory:
    """The histories `rows` in that order, repeated where named twice; a copy."""
    index = torch.as_tensor(rows, device=memory["tokens"].device)
    return _map(memory, lambda tensor: tensor[index] if tensor.dim() else tensor.clone())


def join(memories: Sequence[Memory]) -> Memory:
    """The rows of all `memories`, one after the other; they may be of different lengths.

    Raises `OmniRLError` if they belong to different models, or some of them are between `policy` and `commit`
    and others are not.
    """
    if len({int(memory["config"]) for memory in memories}) != 1:
        raise OmniRLError("memories of different models cannot be joined (and there must be at least one)")
    if len({frozenset(memory) for memory in memories}) != 1:
        raise OmniRLError("some memories wait for an action and others do not; commit the step first")
    joined: Memory = {
        key: torch.cat([memory[key] for memory in memories])
        for key in ("tokens", "open")
        if key in memories[0]
    }
    joined["config"] = memories[0]["config"].clone()
    if "last" in memories[0]:
        joined["last"] = {
            key: torch.cat([memory["last"][key] for memory in memories]) for key in memories[0]["last"]
        }
    if "used" in memories[0]:
        most = max(int(memory["used"]) for memory in memories)
        joined["used"] = memories[0]["used"].new_tensor(most)
        memories = [_align(memory, most) for memory in memories]
    joined["layers"] = [
        {key: torch.cat([layer[key] for layer in layers]) for key in layers[0]}
        for layers in zip(*(memory["layers"] for memory in memories), strict=True)
    ]
    return joined


def put_rows(memory: Memory, rows: Sequence[int], part: Memory) -> Memory:
    """`memory` with the histories of `part` in place of `rows`; its tensors are written to, so it is used up.

    All keys end at the place `used`. Where those of `part` have no room before it, the keys of all other rows
    move on.
    """
    index = torch.as_tensor(rows, device=memory["tokens"].device)
    after = {**memory, "tokens": memory["tokens"].index_copy(0, index, part["tokens"])}
    if "last" in memory:
        last = memory["last"].items()
        after["last"] = {key: old.index_copy(0, index, part["last"][key]) for key, old in last}
    layers = list(zip(memory["layers"], part["layers"], strict=True))
    if "used" not in memory:
        for old, new in layers:
            for key, state in old.items():
                state.index_copy_(0, index, new[key])
        return after
    used, own = int(memory["used"]), int(part["used"])
    filled = max(used, min(own, int(part["tokens"].max())))
    if filled > memory["layers"][0]["keys"].shape[2]:
        layers = [(grow(old, used, used, 2 * filled), new) for old, new in layers]
    others = torch.ones_like(memory["tokens"], dtype=torch.bool).index_fill(0, index, False)
    taken = min(own, filled)
    for old, new in layers:
        for key, cache in old.items():
            if filled > used:
                cache[others, :, filled - used : filled] = cache[others, :, :used]
            cache[index, :, filled - taken : filled] = new[key][:, :, own - taken : own]
    return {**after, "used": torch.tensor(filled), "layers": [old for old, _ in layers]}


def check_memory(memory: Memory, config: OmniRLConfig, batch_size: int) -> None:
    """Raise `OmniRLError` unless `memory` is one of a model with `config`, for `batch_size` histories."""
    if int(memory["config"]) != fingerprint(config):
        raise OmniRLError(
            "the memory belongs to a model of another config; it cannot be continued with this one"
        )
    if len(memory["tokens"]) != batch_size:
        raise OmniRLError(
            f"the memory holds {len(memory['tokens'])} histories and the batch has {batch_size}; "
            "select_rows or join make them fit"
        )


@functools.lru_cache(maxsize=64)
def fingerprint(config: OmniRLConfig) -> int:
    """A number that two configs share when their memories have the same shapes and meaning."""
    kept = {key: value for key, value in config.to_dict().items() if "dropout" not in key}
    return zlib.crc32(json.dumps(kept, sort_keys=True).encode())


def _align(memory: Memory, used: int) -> Memory:
    """The caches with exactly `used` filled places, empty ones in front."""
    own = int(memory["used"])

    def aligned(cache: Tensor) -> Tensor:
        filled = cache[:, :, :own]
        front = filled.new_zeros(*filled.shape[:2], used - own, filled.shape[3])
        return torch.cat((front, filled), dim=2)

    return {**memory, "layers": [{key: aligned(layer[key]) for key in layer} for layer in memory["layers"]]}


def _map(node: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(node, Tensor):
        return change(node)
    if isinstance(node, dict):
        return {key: _map(value, change) for key, value in node.items()}
    return [_map(value, change) for value in node]
