"""One lean step a token: `MemoryFormerForCausalLM.compile_decode`.

A look-up of one token takes some 20 microseconds, so that the some 15 modules of a block, with their hooks,
checks and dispatch, take longer than the arithmetic. `Step` does the arithmetic of the same modules, in the
same order and with the same operators, straight from their tensors, over a key-value cache that is allocated
once. `generate` keeps everything else: preparation, logits processors, sampling, stopping, streaming.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache

from memoryformer import backends
from memoryformer.hf import caches
from memoryformer.layers import MemoryBlock, MemoryLayer
from memoryformer.quantization import QuantizedMemoryLayer

if TYPE_CHECKING:
    from memoryformer.hf.modeling import MemoryFormerForCausalLM

_CHANGING_ROPE = ("dynamic", "longrope")  # frequencies that depend on the length so far
# Where the classes of the model's own modules are defined.
_HOMES = (
    "memoryformer.hf.modeling",
    "memoryformer.layers",
    "memoryformer.quantization",
    "torch.nn.modules.",
    "transformers.models.gpt_neox.",
)
_LOOK_UPS = (MemoryLayer, QuantizedMemoryLayer)


def is_possible(
    model: MemoryFormerForCausalLM, input_ids: Tensor, generation_config: Any, **call: Any
) -> bool:
    """Whether the lean step gives what the modules would give for this `call` of `generate`.

    Not where more than tokens is asked for, where a cache is brought along, for an attention other than
    "sdpa", where the caller counts positions otherwise, or where the model has other modules or parameters
    than its own (adapters, shards, a replaced head), or hooks (accelerate, statistics).
    """
    cache = call.get(caches.NAME)
    config = model.config
    return (
        not generation_config.return_dict_in_generate
        and generation_config.prefill_chunk_size is None
        and not generation_config.is_assistant
        and generation_config.max_length is not None
        and call.get("use_cache", False)
        and call.get("inputs_embeds") is None
        and _counts_tokens(call.get("position_ids"), call.get("attention_mask"), input_ids.shape[1])
        and type(cache) is DynamicCache
        and not getattr(cache, "_is_user_defined", False)
        and config._attn_implementation == "sdpa"
        and (config.rope_parameters or {})["rope_type"] not in _CHANGING_ROPE
        and not torch.is_autocast_enabled(model.device.type)
        and all(map(_is_plain, model.modules()))
        and _is_as_built(model)
        and all(type(values) in (Tensor, nn.Parameter) for values in model.parameters())
        and len({values.device for values in model.parameters()}) == 1
    )


def _counts_tokens(positions: Tensor | None, mask: Tensor | None, length: int) -> bool:
    """Whether the position of the next token is the number of tokens so far, less at most the padding."""
    if positions is None:
        return True
    last = positions[:, -1]
    return bool((last == length - 1).all() if _is_whole(mask) else (last < length).all())


def _is_whole(mask: Tensor | None) -> bool:
    return mask is None or bool(mask.all())


def _is_plain(module: nn.Module) -> bool:
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return not hooked and type(module).__module__.startswith(_HOMES)


def _is_as_built(model: Any) -> bool:
    """Whether the modules whose tensors the step reads are of the class that belongs in their place."""
    from memoryformer.hf.modeling import MemoryFormerAttention, MemoryFormerLayer  # which imports this module

    return (
        type(model.model.embed_tokens) is nn.Embedding
        and all(
            type(layer) is MemoryFormerLayer
            and type(layer.self_attn) is MemoryFormerAttention
            and type(layer.self_attn.qkv_proj) in _LOOK_UPS
            and type(layer.mlp) is MemoryBlock
            and type(layer.mlp.layer1) in _LOOK_UPS
            and type(layer.mlp.layer2) in _LOOK_UPS
            for layer in model.model.layers
        )
        and type(model.lm_head) is nn.Linear
        and model.lm_head.bias is None
    )


class Step:
    """The model for one more token of each sequence, over a cache with room for `max_length` tokens.

    All that a step writes is allocated here, so that a step makes no tensor and slices only the cache. Reads
    the model's tensors once: make a new one after they have changed.
    """

    def __init__(self, model: MemoryFormerForCausalLM, cache: DynamicCache, max_length: int) -> None:
        inner, config = model.model, model.config
        layers: list[Any] = list(inner.layers)
        filled: list[Any] = list(cache.layers)
        self.embedding, self.head = inner.embed_tokens.weight, model.lm_head.weight
        self.x = self.embedding.new_empty(filled[0].keys.shape[0], config.hidden_size)
        self.blocks = [
            _Block(layer, self.x, past, max_length) for layer, past in zip(layers, filled, strict=True)
        ]
        self.normed = torch.empty_like(self.x)
        self.norm = _norm(inner.norm, self.x, self.normed)
        self.length = cache.get_seq_length()
        positions = torch.arange(max_length, device=self.x.device)[None]
        self.cos, self.sin = (part[0] for part in inner.rotary_emb(self.x, positions))

    def __call__(self, tokens: Tensor, positions: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Token ids (batch,) -> logits (batch, vocab_size).

        `positions` (batch,) and `mask` (batch, 1, 1, max_length), True where a token may be seen, are for
        sequences with padding; None: the position is the number of tokens so far, and all are seen.
        """
        at = self.length
        self.length = at + 1
        if positions is None:
            cos, sin = self.cos[at], self.sin[at]
        else:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        first, second = sin.chunk(2, -1)
        minus_first = -first
        seen = None if mask is None else mask[..., : at + 1]
        torch.index_select(self.embedding, 0, tokens, out=self.x)
        for block in self.blocks:
            block.step(at, cos, minus_first, second, seen)
        self.norm()
        return F.linear(self.normed, self.head)


class _Block:
    """One layer for one token: reads and writes x (batch, hidden_size)."""

    def __init__(self, layer: Any, x: Tensor, past: Any, max_length: int) -> None:
        batch, heads, length, width = past.keys.shape
        self.x, self.scale = x, width**-0.5
        # Keys and values in one tensor, so that a token's are written by one copy.
        self.room = past.keys.new_empty(batch, 2, heads, max_length, width)
        self.room[:, 0, :, :length], self.room[:, 1, :, :length] = past.keys, past.values
        self.strides = self.room.stride()
        normed = torch.empty_like(x)
        self.norm = _norm(layer.input_layernorm, x, normed)
        qkv, self.project = _look_up(layer.self_attn.qkv_proj, normed)
        parts = qkv.view(batch, 3, heads, width)
        self.query, self.key_value = parts[:, 0].unsqueeze(2), parts[:, 1:]
        rotated = int(width * layer.self_attn.config.rope_parameters["partial_rotary_factor"])
        self.turned = parts[:, :2, :, :rotated].flatten(1, 2)
        self.halves = self.turned.chunk(2, -1)
        self.a, self.b = torch.empty_like(self.turned), torch.empty_like(self.turned)
        self.quarters = self.b.chunk(2, -1)
        self.feed_forward, self.out = _feed_forward(layer, x)

    def step(self, at: int, cos: Tensor, minus_sin: Tensor, sin: Tensor, seen: Tensor | None) -> None:
        self.norm()
        self.project()
        # rotate_half, with the operations of transformers: q cos + (-q2, q1) sin
        torch.mul(self.turned, cos, out=self.a)
        torch.mul(self.halves[1], minus_sin, out=self.quarters[0])
        torch.mul(self.halves[0], sin, out=self.quarters[1])
        torch.add(self.a, self.b, out=self.turned)
        self.room.select(3, at).copy_(self.key_value)
        batch, _, heads, _, width = self.room.shape
        shape, strides = (batch, heads, at + 1, width), (self.strides[0], *self.strides[2:])
        keys = self.room.as_strided(shape, strides)
        values = self.room.as_strided(shape, strides, self.strides[1])
        attended = F.scaled_dot_product_attention(self.query, keys, values, seen, scale=self.scale)
        self.x.add_(attended.view(batch, -1))
        for part in self.feed_forward:
            part()
        self.x.add_(self.out)


Action = Callable[[], object]


def _feed_forward(layer: Any, x: Tensor) -> tuple[list[Action], Tensor]:
    """The feed-forward part of a layer as actions, and the tensor that they write at last."""
    block = layer.mlp
    normed = torch.empty_like(x)
    middle, first = _look_up(block.layer1, normed)
    inner = torch.empty_like(middle)
    out, second = _look_up(block.layer2, inner)
    actions = [_norm(layer.post_attention_layernorm, x, normed), first, _norm(block.norm, middle, inner)]
    if block.activation is not None:
        actions.append(lambda: inner.copy_(F.gelu(inner)))
    return [*actions, second], out


def _norm(module: Any, x: Tensor, out: Tensor) -> Action:
    """Write the norm of x into `out`."""
    if not isinstance(module, nn.LayerNorm):
        return lambda: out.copy_(module.forward(x))
    settings = module.normalized_shape, module.weight, module.bias, module.eps
    return lambda: out.copy_(torch.layer_norm(x, *settings))


def _look_up(layer: Any, x: Tensor) -> tuple[Tensor, Action]:
    """The tensor that a Memory Layer's result for x is written to, and the action that writes it."""
    lookup = (
        x.view(len(x), layer.num_chunks, layer.tau),
        layer.tables.detach(),
        None if layer.bias is None else layer.bias.detach(),
        getattr(layer, "scales", None),
        layer.score,
        float(layer.temperature),
    )
    return backends.chosen(x.device.type).bound(*lookup)


@torch.no_grad()
def sample(
    model: MemoryFormerForCausalLM,
    input_ids: Tensor,
    logits_processor: Callable[..., Tensor],
    stopping_criteria: Any,
    generation_config: Any,
    streamer: Any = None,
    **model_kwargs: Any,
) -> Tensor:
    """The loop of `generate` for greedy decoding and sampling, token for token as transformers has it."""
    outputs = model(
        input_ids,
        **{key: model_kwargs.get(key) for key in ("attention_mask", "position_ids", caches.NAME)},
        use_cache=True,
        logits_to_keep=1,
    )
    batch, length = input_ids.shape
    max_length = generation_config.max_length
    step = Step(model, outputs[caches.NAME], max_length)
    mask, positions = _padding(model_kwargs.get("attention_mask"), model_kwargs, max_length)
    ids = input_ids.new_empty(batch, max_length)
    ids[:, :length] = input_ids
    pad = generation_config._pad_token_tensor
    has_end = any(hasattr(criteria, "eos_token_id") for criteria in stopping_criteria)
    unfinished = torch.ones(batch, dtype=torch.long, device=ids.device)
    logits, limit = outputs.logits[:, -1], model.config.max_position_embeddings
    while True:
        scores = logits_processor(ids[:, :length], logits.to(copy=True, dtype=torch.float32))
        if generation_config.do_sample:
            tokens = torch.multinomial(F.softmax(scores, dim=-1), num_samples=1).squeeze(1)
        else:
            tokens = torch.argmax(scores, dim=-1)
        if has_end:
            tokens = tokens * unfinished + pad * (1 - unfinished)
        ids[:, length] = tokens
        length += 1
        if streamer is not None:
            streamer.put(tokens.cpu())
        unfinished = unfinished & ~stopping_criteria(ids[:, :length], None)
        if not unfinished.any():
            break
        if length > limit:
            model.model.check_length(length - 1, 1)
        logits = step(tokens, positions, mask)
        positions = None if positions is None else positions + 1
    if streamer is not None:
        streamer.end()
    return ids[:, :length]


def _padding(
    mask: Tensor | None, model_kwargs: dict[str, Any], max_length: int
) -> tuple[Tensor | None, Tensor | None]:
    """The mask (batch, 1, 1, max_length) and the next positions (batch,) of padded sequences, else None."""
    positions = model_kwargs.get("position_ids")
    if mask is None or _is_whole(mask):
        return None, None
    whole = mask.new_ones(mask.shape[0], max_length, dtype=torch.bool)
    whole[:, : mask.shape[1]] = mask.bool()
    following = mask.sum(-1) if positions is None else positions[:, -1] + 1
    return whole[:, None, None], following
