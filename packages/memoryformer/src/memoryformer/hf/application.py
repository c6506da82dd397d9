"""MemoryFormer in a model of another family: `apply_memoryformer`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from memoryformer.errors import MemoryFormerError, MemoryFormerWarning
from memoryformer.hf import saving
from memoryformer.hf.sharing import KeyOrValue, QueryKeyValue
from memoryformer.layers import MemoryBlock, MemoryLayer
from memoryformer.machine import free_bytes

Model = TypeVar("Model", bound=nn.Module)

_SEPARATE = ("q_proj", "k_proj", "v_proj")
_FUSED = ("query_key_value", "qkv_proj", "c_attn")
_OUTPUT = ("o_proj", "out_proj", "dense", "c_proj")
# The matrices of a feed-forward module: those that read its input first, the one that makes its output last.
_FEED_FORWARD = (
    ("gate_proj", "up_proj", "down_proj"),
    ("gate_up_proj", "down_proj"),
    ("dense_h_to_4h", "dense_4h_to_h"),
    ("c_fc", "c_proj"),
    ("fc1", "fc2"),
)


@dataclass(frozen=True)
class Attention:
    """An attention module: the names of its q, k and v (or of the one that holds all), and of its output."""

    name: str
    inputs: tuple[str, ...]
    output: str


def apply_memoryformer(
    model: Model,
    tau: int = 8,
    *,
    expand_bits: int = 2,
    expand: str = "bits",
    score: str = "scaled",
    temperature: float = 1.0,
    activation: str | None = None,
    bias: bool = True,
    attention: bool = True,
    mlp: bool = True,
) -> Model:
    """Replace the fully connected layers of a transformers model by Memory Layers, in place; section 2.3.

    In each attention (`attention`) q, k and v become one Memory Layer, so that they share one hash, and the
    output projection goes: an identity, where its widths are equal; where they are not (more or wider heads
    than the width of the model), a Memory Layer takes its place, with a `MemoryFormerWarning`. Each
    feed-forward module (`mlp`), gated or not, becomes a `MemoryBlock`. Norms, rotary embeddings, key-value
    heads, embeddings and head stay. Dropout inside a feed-forward module goes with it. The other arguments
    are those of `MemoryBlock` and `MemoryLayer`.

    The new tables are random (q, k, v: N(0, 2 / (5 d)), others N(0, 0.02²)): the result is to be trained. No
    Memory Layer can do what a trained matrix does (`memoryformer probe` measures it). Saved and loaded by
    `save_pretrained` and `from_pretrained`. Works on the meta device. On several GPUs it wants a process for
    each (`torchrun`): in `nn.DataParallel`, which `Trainer` takes for a single process, q, k and v raise a
    `MemoryFormerError`. Returns `model`.

    Raises `MemoryFormerError` if tau does not divide a width, if nothing is found to replace, if only some
    layers have a feed-forward module that can be replaced (mixtures of experts), for a quantised model, and
    for tables that the free memory does not hold; the model is then as it was.
    """
    _check_can_be_changed(model)
    settings: dict[str, Any] = {
        "tau": tau,
        "expand_bits": expand_bits,
        "expand": expand,
        "score": score,
        "temperature": temperature,
        "activation": activation,
        "bias": bias,
        "attention": attention,
        "mlp": mlp,
    }
    kept = install(model, **settings)
    if kept:
        name, (width, out) = kept[0]
        warnings.warn(
            f"{name} maps {width} numbers to {out}, so it cannot be dropped: a Memory Layer took its place "
            f"(in {len(kept)} layers)",
            MemoryFormerWarning,
            stacklevel=2,
        )
    saving.record(model, applied=settings)
    return model


def install(
    model: nn.Module,
    *,
    tau: int,
    expand_bits: int,
    expand: str,
    score: str,
    temperature: float,
    activation: str | None,
    bias: bool,
    attention: bool,
    mlp: bool,
) -> list[tuple[str, tuple[int, int]]]:
    """Replace the modules; see `apply_memoryformer`. Returns the output projections that had to stay."""
    layer: dict[str, Any] = {"tau": tau, "score": score, "temperature": temperature, "bias": bias}
    block: dict[str, Any] = {**layer, "expand_bits": expand_bits, "expand": expand, "activation": activation}
    attentions = list(attention_modules(model)) if attention else []
    blocks = feed_forward_modules(model) if mlp else {}
    _check_found(model, attentions, blocks, attention, mlp)
    _check_room(model, attentions, blocks, layer, block)
    kept = []
    for found in attentions:
        _replace_inputs(model.get_submodule(found.name), found.inputs, layer)
        if widths := _replace_output(model.get_submodule(found.name), found.output, layer):
            kept.append((f"{found.name}.{found.output}", widths))
    for name, width in blocks.items():
        old = model.get_submodule(name)
        first = next(old.parameters())
        new = MemoryBlock(width, **block, device=first.device, dtype=first.dtype)
        model.set_submodule(name, _mark_initialized(new).train(old.training))
    return kept


def attention_modules(model: nn.Module) -> Iterator[Attention]:
    """Every attention whose projections are dense matrices with names that are known."""
    for name, module in model.named_modules():
        matrices = {child for child, part in module.named_children() if _is_matrix(part)}
        output = next((child for child in _OUTPUT if child in matrices), None)
        fused = next((child for child in _FUSED if child in matrices), None)
        if output is None:
            continue
        if matrices.issuperset(_SEPARATE):
            yield Attention(name, _SEPARATE, output)
        elif fused is not None:
            yield Attention(name, (fused,), output)


def feed_forward_modules(model: nn.Module) -> dict[str, int]:
    """Every feed-forward module, gated or not -> the width of its input and output."""
    found = {}
    for name, module in model.named_modules():
        matrices = {child: part for child, part in module.named_children() if _is_matrix(part)}
        for names in _FEED_FORWARD:
            if set(matrices) == set(names):
                (width, _), (_, out) = _shape(matrices[names[0]]), _shape(matrices[names[-1]])
                if width == out:
                    found[name] = width
    return found


def _replace_inputs(module: nn.Module, names: tuple[str, ...], settings: dict[str, Any]) -> None:
    old = [module.get_submodule(name) for name in names]
    width = _shape(old[0])[0]
    sizes = [_shape(part)[1] for part in old]
    weight = next(old[0].parameters())
    layer = MemoryLayer(
        width,
        sum(sizes),
        **settings,
        init_std=math.sqrt(2 / (5 * width)),
        device=weight.device,
        dtype=weight.dtype,
    )
    _mark_initialized(layer).train(module.training)
    if len(names) == 1:
        setattr(module, names[0], layer)
        return
    query = QueryKeyValue(layer, sizes)
    for index, (name, new) in enumerate(
        zip(names, (query, KeyOrValue(query, 1), KeyOrValue(query, 2)), strict=True)
    ):
        setattr(module, name, new.train(old[index].training))


def _replace_output(module: nn.Module, name: str, settings: dict[str, Any]) -> tuple[int, int] | None:
    """Drop the output projection; where its widths differ, put a Memory Layer there and return them."""
    old = module.get_submodule(name)
    width, out = _shape(old)
    if width == out:
        setattr(module, name, nn.Identity())
        if not [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            attention: Any = module
            attention._is_hf_initialized = True  # GPT-2 would draw the output matrix from there
        return None
    weight = next(old.parameters())
    layer = MemoryLayer(width, out, **settings, device=weight.device, dtype=weight.dtype)
    setattr(module, name, _mark_initialized(layer).train(old.training))
    return width, out


def _mark_initialized(module: nn.Module) -> nn.Module:
    """Tell transformers that the values are there, so that its own initialisation leaves them."""
    if not any(parameter.is_meta for parameter in module.parameters()):
        things: list[Any] = [*module.modules(), *module.parameters()]
        for thing in things:
            thing._is_hf_initialized = True
    return module


def _check_can_be_changed(model: nn.Module) -> None:
    if any(isinstance(module, MemoryLayer | MemoryBlock) for module in model.modules()):
        raise MemoryFormerError(f"{type(model).__name__} has Memory Layers already")
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not isinstance(quantizer, saving.MemoryFormerQuantizer):
        raise MemoryFormerError(
            f"{type(model).__name__} is quantised by {quantizer.quantization_config.quant_method}: load it "
            "without quantisation, and quantise the tables afterwards (quantize_tables_)"
        )


def _check_found(
    model: nn.Module, attentions: list[Attention], blocks: dict[str, int], attention: bool, mlp: bool
) -> None:
    kind = type(model).__name__
    if not attention and not mlp:
        raise MemoryFormerError("attention=False and mlp=False leave nothing to replace")
    layers = model.config.get_text_config().num_hidden_layers if isinstance(model, PreTrainedModel) else None
    for wanted, number, what in (
        (attention, len(attentions), "attention modules with q, k, v and output projections"),
        (mlp, len(blocks), "feed-forward modules"),
    ):
        if wanted and (number == 0 or (layers is not None and number != layers)):
            raise MemoryFormerError(
                f"{kind} has {'' if layers is None else f'{layers} layers, and '}{number} {what} that can be "
                "replaced. Known are the names of the Llama, GPT-NeoX and GPT-2 families, but no mixtures of "
                "experts. attention=False or mlp=False leaves one kind as it is, and "
                "memoryformer.convert.replace_linear replaces single matrices by name"
            )


def _check_room(
    model: nn.Module,
    attentions: list[Attention],
    blocks: dict[str, int],
    layer: dict[str, Any],
    block: dict[str, Any],
) -> None:
    """See before anything is replaced that all can be built, and that its tables fit in the free memory."""
    new: list[nn.Module] = [MemoryBlock(width, **block, device="meta") for width in blocks.values()]
    for found in attentions:
        module = model.get_submodule(found.name)
        shapes = [_shape(module.get_submodule(name)) for name in found.inputs]
        new.append(MemoryLayer(shapes[0][0], sum(out for _, out in shapes), **layer, device="meta"))
        width, out = _shape(module.get_submodule(found.output))
        if width != out:
            new.append(MemoryLayer(width, out, **layer, device="meta"))
    first = next(model.parameters())
    numbers = sum(values.numel() for module in new for values in module.parameters())
    needed, free = numbers * first.dtype.itemsize, free_bytes(first.device)
    if free is not None and needed > free:
        raise MemoryFormerError(
            f"the tables would need {needed / 1e9:.1f} GB, and {first.device} has {free / 1e9:.1f} GB free. "
            "Choose a smaller tau or expand_bits, replace attention or mlp alone, or convert the model to "
            "bfloat16 first"
        )


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _shape(module: Any) -> tuple[int, int]:
    """(n_in, n_out) of a dense layer."""
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    return module.in_features, module.out_features
