"""The latent cache: z = A x is kept in place of keys and values, r numbers each (section 2).

Values need no expansion. Of head h, sum_j p_j (B_v^h z_j + b_v^h) = B_v^h (sum_j p_j z_j) + b_v^h, exactly:
attention runs over the z_j, and B_v is applied once a query. Keys without a rotary embedding are the same
the other way round: q . (B_k^h z_j) = (B_k^h^T q) . z_j.

Rotated keys R_j B_k^h z_j have another matrix at each position j, so they are expanded again for each query,
block by block: exact, but 2 r FLOPs a cached number and step, more time than reading the number from memory.
`keys="rotated"` keeps the keys as they are and only the values as latents: less saved, and no arithmetic.

The cache gets the z from hooks on B, and attention from a function registered with transformers, which is
its `sdpa` for every other cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from lpa.architectures import head_dim, sites
from lpa.cache_parts import GrowingLayer, Rotation, Tap, blocks
from lpa.errors import LPAError
from lpa.layers import FusedLowRank, LowRankLinear

Keys: TypeAlias = Literal["latent", "rotated"]

ATTENTION = "lpa_latent"


def latent_cache(model: PreTrainedModel, keys: Keys = "latent") -> LatentCache:
    """An empty cache for one batch, to be given to `model(...)` or `model.generate` as `past_key_values`.

        model.generate(**inputs, past_key_values=lpa.latent_cache(model))

    Results are those of the ordinary cache, up to rounding. `keys="latent"` keeps 2 r numbers a token and
    layer instead of twice the key-value width; `keys="rotated"` keeps r and one key-value width, which is
    faster where the model rotates keys (RoPE). It sets the model's attention to a function that is `sdpa` for
    all other caches. Not for training.

    Raises `LPAError` if k and v (for "rotated": v) are not low-rank in all layers, for ranks that save
    nothing, for an adapter on B, for another attention than sdpa, and at the first use, for models that
    change keys in a way that is not known here.
    """
    if keys not in ("latent", "rotated"):
        raise LPAError(f"keys is {keys!r}; it must be 'latent' or 'rotated'")
    projections = _projections(model, keys)
    _use_latent_attention(model)
    rotary = next((module for name, module in model.named_modules() if name.endswith("rotary_emb")), None)
    return LatentCache(projections, rotary, keys)


class LatentCache(Cache):
    """See `latent_cache`."""

    layers: list[Any]

    def __init__(self, projections: list[Projections], rotary: nn.Module | None, keys: Keys) -> None:
        self.rotation = Rotation(rotary) if rotary is not None and keys == "latent" else None
        super().__init__(layers=[LatentLayer(projection, self.rotation) for projection in projections])

    @property
    def nbytes(self) -> int:
        """Bytes that the tokens so far take, all layers together.

        Beside these: storage ahead for at most 256 tokens, and with RoPE one table of the positions' angles
        for all layers, one head's width a token.
        """
        kept = [tensor for layer in self.layers for tensor in (layer.keys, layer.values)]
        return sum(tensor.nbytes for tensor in kept if tensor is not None)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Keep the latents of new tokens; what comes back is for the attention function."""
        if layer_idx == 0 and self.rotation is not None:
            self.rotation.extend(key_states.shape[0])
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def _all_layers(self) -> list[Any]:
        return [*self.layers, *([self.rotation] if self.rotation is not None else [])]

    def reset(self) -> None:
        """Forget all tokens."""
        for layer in self._all_layers():
            layer.reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens (a negative number of them, as in transformers)."""
        for layer in self._all_layers():
            layer.crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: Any) -> None:
        """Take these rows of the batch, for beam search."""
        for layer in self._all_layers():
            layer.reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        for layer in self._all_layers():
            layer.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Take these rows of the batch."""
        for layer in self._all_layers():
            layer.batch_select_indices(indices)


class LatentLayer(GrowingLayer):
    """One layer's cache: `values` are z_v (batch, 1, tokens, r); `keys` z_k, or the keys themselves."""

    def __init__(self, projections: Projections, rotation: Rotation | None) -> None:
        super().__init__()
        self.k = None if projections.k is None else Tap(projections.k.up)
        self.v = Tap(projections.v.up)
        self.k_norm = projections.k_norm
        self.rotation = rotation
        self.head_dim = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """Keep new tokens. Alone they need no cache: the model's own keys and values go on."""
        first = self.get_seq_length() == 0
        self.head_dim = key_states.shape[-1]
        self.append(key_states if self.k is None else self.k.take()[:, None], self.v.take()[:, None])
        if not first:
            return self, self
        self._check(key_states, value_states)
        return key_states, value_states

    def attend(
        self, query: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
    ) -> tuple[torch.Tensor, None]:
        """Attention of `query` (batch, heads, queries, head_dim) over all cached tokens.

        `mask` broadcasts to (batch, 1, queries, tokens): True where a token is seen, or added to the scores;
        None if all are. Returns (batch, queries, heads, head_dim), as transformers' attention functions do.
        """
        batch, heads, queries, width = query.shape
        kv_heads = self.v.linear.out_features // width
        # Queries of the heads that share a key-value head stand in one matrix.
        grouped = query.reshape(batch, kv_heads, heads // kv_heads * queries, width)
        scores = self._scores(grouped) * (width**-0.5 if scaling is None else scaling)
        scores = scores.view(batch, heads, queries, -1)
        if mask is None and queries > 1:
            tokens = scores.shape[-1]
            mask = scores.new_ones(queries, tokens, dtype=torch.bool).tril(tokens - queries)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores = scores + mask
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        mixed = weights.view(batch, heads * queries, -1) @ self.values[:, 0]
        mixed = mixed.view(batch, kv_heads, heads // kv_heads * queries, -1)
        output = mixed @ _by_head(self.v.linear, kv_heads).mT
        if (bias := self.v.linear.bias) is not None:
            output = output + bias.view(kv_heads, 1, width)
        return output.view(batch, heads, queries, width).transpose(1, 2).contiguous(), None

    def _scores(self, query: torch.Tensor) -> torch.Tensor:
        """q . k_j for all tokens: (batch, kv heads, queries, head_dim) -> (..., queries, tokens)."""
        if self.k is None:
            return query @ self.keys.mT
        linear = self.k.linear
        by_head = _by_head(linear, query.shape[1])
        if self.rotation is None and self.k_norm is None:
            absorbed = query @ by_head
            scores = (absorbed.flatten(1, 2) @ self.keys[:, 0].mT).view(*query.shape[:3], -1)
            bias = None if linear.bias is None else linear.bias.view(query.shape[1], -1, 1)
            return scores if bias is None else scores + query @ bias
        if self.rotation is not None and self.k_norm is None and query.shape[2] == 1:
            return self.rotation.scores(query[:, :, 0], by_head, linear.bias, self.keys[:, 0])
        length = self.get_seq_length()
        scores = query.new_empty(*query.shape[:3], length)
        for block in blocks(length):
            scores[..., block] = query @ self.expanded_keys(block).mT
        return scores

    def expanded_keys(self, tokens: slice) -> torch.Tensor:
        """The keys (batch, kv heads, tokens, head_dim) of some cached tokens."""
        if self.k is None:
            return self.keys[:, :, tokens]
        keys = self._expanded(self.keys[:, 0, tokens], self.k)
        if self.k_norm is not None:
            keys = self.k_norm(keys)
        return keys if self.rotation is None else self.rotation.rotate(keys, tokens)

    def _expanded(self, latents: torch.Tensor, tap: Tap) -> torch.Tensor:
        """z (batch, tokens, r) -> (batch, kv heads, tokens, head_dim)."""
        expanded = F.linear(latents, tap.linear.weight, tap.linear.bias)  # not the module: it is tapped
        return expanded.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _check(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Raise `LPAError` unless the latents give the model's own keys and values."""
        some = slice(max(0, keys.shape[-2] - 8), keys.shape[-2])
        for what, own, ours in (
            ("keys", keys[:, :, some], self.expanded_keys(some)),
            ("values", values[:, :, some], self._expanded(self.values[:, 0, some], self.v)),
        ):
            tolerance = 1e-3 if own.dtype in (torch.float32, torch.float64) else 5e-2
            if (own - ours).abs().max() > tolerance * own.abs().max():
                raise LPAError(
                    f"latent_cache does not know how this model's {what} come from their latents (a norm or "
                    "another rotation after the projection?)"
                    + (": use latent_cache(model, keys='rotated')" if what == "keys" else "")
                )


@dataclass(frozen=True)
class Projections:
    """What makes the keys and values of one layer; `k` is None where keys are kept as they are."""

    k: LowRankLinear | None
    v: LowRankLinear
    k_norm: nn.Module | None

    def __deepcopy__(self, memo: Any) -> Projections:
        return self


def _projections(model: PreTrainedModel, keys: Keys) -> list[Projections]:
    found: dict[int, dict[str, Any]] = {}
    for site in sites(model):
        module = model.get_submodule(site.name)
        for part, _ in site.parts:
            if site.role_of(part) in ("k", "v") and site.layer is not None:
                layer = module.parts[part] if isinstance(module, FusedLowRank) else module
                found.setdefault(site.layer, {})[site.role_of(part)] = layer
                attention = model.get_submodule(site.name.rpartition(".")[0])
                found[site.layer]["norm"] = getattr(attention, "k_norm", None)
    number = model.config.get_text_config().num_hidden_layers
    for index in range(number):
        for role in ("k", "v") if keys == "latent" else ("v",):
            _check_projection(found.get(index, {}).get(role), role, index, keys)
    if keys == "rotated":
        return [Projections(None, found[index]["v"], None) for index in range(number)]
    for index in range(number):
        norm = found[index]["norm"]
        if norm is not None and any(p.numel() != head_dim(model) for p in norm.parameters()):
            raise LPAError(
                f"latent_cache(keys='latent'): layer {index} has a norm over the keys of all heads together, "
                "for which no latents can stand: use latent_cache(model, keys='rotated')"
            )
    return [
        Projections(found[index]["k"], found[index]["v"], found[index]["norm"]) for index in range(number)
    ]


def _check_projection(projection: Any, role: str, layer: int, keys: Keys) -> None:
    where = f"latent_cache(keys={keys!r}): {role} of layer {layer}"
    if not isinstance(projection, LowRankLinear):
        raise LPAError(f"{where} is not low-rank, so it has no latents to keep. Use the ordinary cache")
    if projection.rank >= projection.out_features:
        raise LPAError(
            f"{where} has rank {projection.rank}, not below its width {projection.out_features}: latents "
            "would take more memory than what they stand for. Use the ordinary cache"
        )
    if type(projection.up) is not nn.Linear or type(projection.up.weight) is not nn.Parameter:
        raise LPAError(
            f"{where} has an adapter, a shard or a quantised weight on its B. Merge the adapter, or use the "
            "ordinary cache"
        )


def _by_head(linear: nn.Linear, kv_heads: int) -> torch.Tensor:
    """B as (kv heads, head_dim, r)."""
    return linear.weight.unflatten(0, (kv_heads, -1))


def _use_latent_attention(model: PreTrainedModel) -> None:
    config = model.config.get_text_config()
    if config._attn_implementation == ATTENTION:
        return
    if config._attn_implementation != "sdpa":
        raise LPAError(
            f"latent_cache works with attention 'sdpa'; the model uses {config._attn_implementation!r}. "
            "Call model.set_attn_implementation('sdpa') first"
        )
    model.set_attn_implementation(ATTENTION)
    if config._attn_implementation != ATTENTION:
        raise LPAError(
            f"{type(model).__name__} has attention code of its own, which cannot read latents. Use the "
            "ordinary cache"
        )


def latent_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: Any,
    value: Any,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over latents, or `sdpa` over ordinary keys and values."""
    if isinstance(key, LatentLayer):
        return key.attend(query, attention_mask, scaling)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


AttentionInterface.register(ATTENTION, latent_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
