"""`save_pretrained` and `from_pretrained` for models of other families, and for int8 or bfloat16 tables.

transformers lets a quantisation method swap a model's modules before the weights are loaded. MemoryFormer is
registered as such a method: config.json carries, under `quantization_config`, what was done to the model, and
it is done again to the skeleton before its weights are read. `import memoryformer.hf` teaches it. (So
`model.is_quantized` is True for a changed model, which says no more than that; it trains as others do, unless
its tables are int8.)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from memoryformer.errors import MemoryFormerError
from memoryformer.layers import MemoryLayer
from memoryformer.quantization import QuantizedMemoryLayer, quantize_tables_

METHOD = "memoryformer"
_STORED_AS = {"int8": ("I8",), "float32": ("F32",), "floats": ("F32", "BF16", "F16", "F64")}  # by safetensors


@register_quantization_config(METHOD)
class MemoryFormerChanges(QuantizationConfigMixin):
    """What was done to a model, as config.json carries it.

    `applied`: the arguments of `apply_memoryformer`. `linear`: the matrices that `replace_linear` replaced,
    by name, with the arguments of their `MemoryLayer`. `tables`: None, "int8" or "bfloat16".
    """

    def __init__(
        self,
        applied: Mapping[str, Any] | None = None,
        linear: Mapping[str, Mapping[str, Any]] | None = None,
        tables: str | None = None,
        quant_method: str = METHOD,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise MemoryFormerError(
                f"quantization_config in config.json has {', '.join(sorted(unknown))}, which this version of "
                "memoryformer does not know: a newer one wrote it"
            )
        self.quant_method = quant_method  # type: ignore[assignment]  # transformers' enum has only its own
        self.applied = None if applied is None else dict(applied)
        self.linear = {name: dict(settings) for name, settings in (linear or {}).items()}
        self.tables = tables

    def to_dict(self) -> dict[str, Any]:
        """What stands in config.json."""
        return {
            "quant_method": METHOD,
            "applied": self.applied,
            "linear": self.linear,
            "tables": self.tables,
        }


@register_quantizer(METHOD)
class MemoryFormerQuantizer(HfQuantizer):
    """Changes the model's skeleton before `from_pretrained` loads the weights."""

    requires_calibration = False

    @property
    def changes(self) -> MemoryFormerChanges:
        """What is to be done, or was."""
        return cast(MemoryFormerChanges, self.quantization_config)

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: Sequence[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        from memoryformer.hf.application import install

        changes = self.changes
        if changes.applied is not None:
            install(model, **changes.applied)
        for name, settings in changes.linear.items():
            model.set_submodule(name, MemoryLayer(**settings))
        if changes.tables == "int8":
            _expect_int8(model)
        elif changes.tables == "bfloat16":
            quantize_tables_(model, "bfloat16")  # what the skeleton has is neither converted nor copied
        check_stored(model, checkpoint_files or ())
        return model

    def get_state_dict_and_metadata(self, model: PreTrainedModel) -> tuple[None, dict[str, str]]:
        """Called by `save_pretrained`: note what the tables are now."""
        self.changes.tables = stored_tables(model)
        return None, {}

    def is_serializable(self) -> bool:
        """`save_pretrained` works."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Tables are ordinary parameters, but not as int8."""
        return self.changes.tables != "int8"

    @property
    def is_qat_trainable(self) -> bool:
        """Without this, `Trainer` refuses to train all weights."""
        return self.is_trainable

    @property
    def is_compileable(self) -> bool:
        """`torch.compile` works."""
        return True


def record(
    model: nn.Module,
    *,
    applied: Mapping[str, Any] | None = None,
    linear: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Note in a transformers model what was done to it, so that saving and loading know; see the class.

    Adds to what is noted already. The model gets a config of its own: others may have been made of the same
    one, and were not changed. A model of another library is left alone.
    """
    if not isinstance(model, PreTrainedModel):
        return
    before = recorded(model)
    if before is None:
        _part_config(model)
        before = MemoryFormerChanges()
    changes = MemoryFormerChanges(
        before.applied if applied is None else applied,
        before.linear | {name: dict(settings) for name, settings in (linear or {}).items()},
        stored_tables(model),
    )
    model.config.quantization_config = changes
    noted: Any = model
    noted.hf_quantizer = MemoryFormerQuantizer(changes)
    noted.is_quantized = True
    noted.quantization_method = METHOD


def recorded(model: PreTrainedModel) -> MemoryFormerChanges | None:
    """What is noted in a model, None if nothing is. (Its config may come from another model.)"""
    quantizer = getattr(model, "hf_quantizer", None)
    return quantizer.changes if isinstance(quantizer, MemoryFormerQuantizer) else None


def record_tables(model: PreTrainedModel) -> None:
    """Before saving: note how the tables are stored, and drop a note that came with another's config."""
    if stored_tables(model) is not None:
        record(model)
    elif recorded(model) is None and _has_note(model):
        _part_config(model)
        del model.config.quantization_config


def _has_note(model: PreTrainedModel) -> bool:
    noted = getattr(model.config, "quantization_config", None)  # a dict, if the config was read from a file
    method = noted.get("quant_method") if isinstance(noted, dict) else getattr(noted, "quant_method", None)
    return method == METHOD


def _part_config(model: PreTrainedModel) -> None:
    """Put a copy of its config in a model and its modules."""
    shared = model.config
    own = copy.copy(shared)
    modules: list[Any] = [module for module in model.modules() if getattr(module, "config", None) is shared]
    for module in modules:
        module.config = own


def stored_tables(model: nn.Module) -> str | None:
    """How the tables of a model are stored: "int8", "bfloat16", or None: as the other parameters are.

    Raises `MemoryFormerError` if only some are: config.json has no place for that.
    """
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    kinds: dict[str | None, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, QuantizedMemoryLayer):
            kinds["int8"] = name
        elif isinstance(module, MemoryLayer):
            dtype = module.tables.dtype
            kinds["bfloat16" if dtype == torch.bfloat16 and own != torch.bfloat16 else None] = name
    if len(kinds) > 1:
        known = ", ".join(f"{name}: {kind or 'as the other parameters'}" for kind, name in kinds.items())
        raise MemoryFormerError(
            f"tables of several kinds cannot be saved in one model ({known}); quantize_tables_ changes all"
        )
    return next(iter(kinds), None)


def check_stored(model: nn.Module, files: Sequence[str]) -> None:
    """See that a checkpoint has the model's tables: of its shapes, floats or int8 with scales.

    Raises `MemoryFormerError`.
    """
    found = {}
    for file in files:
        if str(file).endswith(".safetensors"):
            with safe_open(file, framework="pt") as tensors:
                slices = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118
                found.update({key: (one.get_shape(), one.get_dtype()) for key, one in slices.items()})
    if not found:
        return
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedMemoryLayer):
            _check_one(f"{name}.tables", found, layer.tables, layer.tau, "int8")
            _check_one(f"{name}.scales", found, layer.scales, layer.tau, "float32")
        elif isinstance(layer, MemoryLayer):
            _check_one(f"{name}.tables", found, layer.tables, layer.tau, "floats")


def _check_one(
    key: str, found: Mapping[str, tuple[list[int], str]], expected: torch.Tensor, tau: int, numbers: str
) -> None:
    # A checkpoint of the whole model may be read into its inner one, and the other way round.
    shape, kind = next((found[own] for own in found if _same(own, key)), (None, ""))
    if shape != list(expected.shape) or kind not in _STORED_AS[numbers]:
        there = "missing" if shape is None else f"{shape} of {kind}"
        raise MemoryFormerError(
            f"{key} is {there} in the checkpoint; by config.json (quantization_config) it is "
            f"{list(expected.shape)}, tau {tau}, of {numbers}. Correct the config, or load the checkpoint it "
            "belongs to"
        )


def _same(stored: str, key: str) -> bool:
    return stored == key or stored.endswith(f".{key}") or key.endswith(f".{stored}")


def _expect_int8(model: PreTrainedModel) -> None:
    for name, layer in list(model.named_modules()):
        if isinstance(layer, MemoryLayer):
            empty = QuantizedMemoryLayer(
                layer.in_features,
                layer.out_features,
                layer.tau,
                score=layer.score,
                temperature=layer.temperature,
                bias=layer.bias is not None,
                device=layer.tables.device,
            )
            model.set_submodule(name, empty)
    strict: Any = model
    strict._keep_in_fp32_modules_strict = {*(model._keep_in_fp32_modules_strict or ()), "scales"}
