"""What the latent cache is made of: storage that grows, rotation tables, and taps into the model."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer

from lpa.errors import LPAError

BLOCK = 256  # tokens that are expanded at once: (BLOCK, kv width) should stay in the processor's cache
STEP = 256  # tokens by which the storage grows


def blocks(length: int) -> Iterator[slice]:
    """The tokens 0..length in pieces of at most BLOCK."""
    for start in range(0, length, BLOCK):
        yield slice(start, min(start + BLOCK, length))


class GrowingLayer(DynamicLayer):
    """`keys` and `values` (batch, heads, tokens, width), at the start of storage with room for more."""

    keys: Any  # None while empty
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self._storage: dict[str, torch.Tensor] = {}

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add tokens at the end."""
        self.keys = self._appended("keys", self.keys, keys)
        self.values = self._appended("values", self.values, values)
        self.is_initialized = True

    def _appended(self, name: str, kept: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        kept = new[..., :0, :] if kept is None else kept
        start, end = kept.shape[-2], kept.shape[-2] + new.shape[-2]
        room = self._storage.get(name)
        if room is None or kept.data_ptr() != room.data_ptr() or end > room.shape[-2]:
            room = new.new_empty(*new.shape[:-2], -(-end // STEP) * STEP, new.shape[-1])
            room[..., :start, :] = kept
            self._storage[name] = room
        room[..., start:end, :] = new
        return room[..., :end, :]

    def reset(self) -> None:
        """Forget all tokens."""
        self._storage.clear()
        super().reset()


class Rotation(GrowingLayer):
    """The rotary embedding at the cached positions: `keys` cos, `values` sin (batch, 1, tokens, width / 2).

    One for all layers. The halves of a head rotate against each other, as in Llama.
    """

    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        self._tap = Tap(rotary, output=True)

    def extend(self, batch: int) -> None:
        """Add the angles of the model's present call."""
        cos, sin = (table[:, None, :, : table.shape[-1] // 2] for table in self._tap.take())
        self.append(cos.expand(batch, -1, -1, -1), sin.expand(batch, -1, -1, -1))

    def rotate(self, keys: torch.Tensor, tokens: slice) -> torch.Tensor:
        """R_j k_j of (batch, kv heads, tokens, head_dim); dimensions beyond the table's stay as they are."""
        cos, sin = self.keys[:, :, tokens], self.values[:, :, tokens]
        half = cos.shape[-1]
        left, right, rest = keys.split([half, half, keys.shape[-1] - 2 * half], dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin, rest], dim=-1)

    def scores(
        self, query: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None, latents: torch.Tensor
    ) -> torch.Tensor:
        """q . R_j (B z_j + b) for all tokens, one query a key-value head, without rotating any key.

        With a head's halves 1 and 2, frequency by frequency, it is
            cos_j (q_1 B_1 + q_2 B_2) z_j + sin_j (q_2 B_1 - q_1 B_2) z_j,
        so the query goes into B once, and the angles weight what comes out. `query` (batch, kv heads,
        head_dim), `matrix` B (kv heads, head_dim, r), `bias` b (kv heads * head_dim), `latents`
        (batch, tokens, r). Returns (batch, kv heads, 1, tokens).
        """
        if bias is not None:  # one more column of B, for a latent that is always 1
            matrix = torch.cat([matrix, bias.view(*matrix.shape[:2], 1)], dim=-1)
        half = self.keys.shape[-1]
        sizes = [half, half, query.shape[-1] - 2 * half]
        (q1, q2, q3), (b1, b2, b3) = query[..., None].split(sizes, dim=2), matrix.split(sizes, dim=1)
        rows = [q1 * b1 + q2 * b2, q2 * b1 - q1 * b2, (q3 * b3).sum(2, keepdim=True)]
        folded = torch.cat(rows, dim=2)
        rank, (batch, heads, width) = latents.shape[-1], folded.shape[:3]
        weights = folded[..., :rank].flatten(1, 2).contiguous()
        scores = query.new_empty(batch, heads, 1, latents.shape[1])
        for block in blocks(latents.shape[1]):
            cos, sin = self.keys[:, 0, block].mT, self.values[:, 0, block].mT
            angles = torch.cat([cos, sin, torch.ones_like(cos[:, :1])], dim=1)[:, None]
            products = (weights @ latents[:, block].mT).view(batch, heads, width, -1)
            products = products + folded[..., rank:] if bias is not None else products
            scores[:, :, 0, block] = products.mul_(angles).sum(2)
        return scores


class _Last(threading.local):
    """Each thread's own: several may generate with one model at a time, each with a cache of its own."""

    value: Any = None


class Tap:
    """What flows into (or out of) a module at its last call in this thread, while anybody holds the tap."""

    def __init__(self, module: nn.Module, output: bool = False) -> None:
        self.linear: Any = module
        self._last = _Last()
        this = weakref.ref(self)

        def note(_module: nn.Module, arguments: Any, result: Any) -> None:
            tap = this()
            if tap is not None:
                tap._last.value = result if output else arguments[0]

        weakref.finalize(self, module.register_forward_hook(note).remove)

    def __deepcopy__(self, memo: Any) -> Tap:
        return self  # a copied cache belongs to the same model

    def take(self) -> Any:
        """The last thing seen, once."""
        last, self._last.value = self._last.value, None
        if last is None:
            raise LPAError("this latent cache belongs to another model: make one by latent_cache(model)")
        return last
