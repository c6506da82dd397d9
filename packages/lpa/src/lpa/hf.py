"""The plug-in that makes `save_pretrained` and `from_pretrained` of transformers know low-rank models.

transformers lets a quantisation method swap a model's modules before the weights are loaded. LPA registers
itself as such a method: config.json carries the LPA config under `quantization_config`, and any architecture
loads back, once `import lpa` has run. (So `model.is_quantized` is True for a low-rank model, which says no
more than that; its weights are ordinary floating-point parameters and train as such.)
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Sequence
from typing import Any, cast

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lpa.checkpoints import check_complete, check_ranks
from lpa.config import LPAConfig
from lpa.errors import LPAError, LPAWarning
from lpa.layers import LowRankLinear
from lpa.parallel import low_rank_plan

METHOD = "lpa"


@register_quantization_config(METHOD)
class LPAQuantizationConfig(QuantizationConfigMixin):
    """The LPA config as transformers carries it in config.json."""

    def __init__(self, quant_method: str = METHOD, **settings: Any) -> None:
        self.quant_method = quant_method  # type: ignore[assignment]  # transformers' enum has only its own
        self.lpa = LPAConfig.from_dict(settings)

    def to_dict(self) -> dict[str, Any]:
        """What stands in config.json."""
        return {"quant_method": METHOD, **self.lpa.to_dict()}


@register_quantizer(METHOD)
class LPAQuantizer(HfQuantizer):
    """Makes the model low-rank before `from_pretrained` loads the weights."""

    requires_calibration = False

    @property
    def lpa(self) -> LPAConfig:
        """The config of the low-rank model."""
        return cast(LPAQuantizationConfig, self.quantization_config).lpa

    def update_tp_plan(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Rewrite the tensor-parallel plan of families that have one; see `lpa.parallel`."""
        text = config.get_text_config()
        if text.base_model_tp_plan:
            plan = low_rank_plan(text.base_model_tp_plan, self.lpa, text.num_hidden_layers)
            text.base_model_tp_plan = plan  # type: ignore[misc]  # of this config, not of its class
        return config

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, checkpoint_files: Sequence[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        from lpa.surgery import apply_lpa

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LPAWarning)  # said when the model was made
            apply_lpa(model, _of_inner_model_too(self.lpa, model.base_model_prefix))
        check_ranks(model, checkpoint_files or ())
        check_complete(model, checkpoint_files or ())
        return model

    def is_serializable(self) -> bool:
        """`save_pretrained` works."""
        return True

    @property
    def is_trainable(self) -> bool:
        """The factors are ordinary parameters."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """Without this, `Trainer` refuses to train all weights."""
        return True

    @property
    def is_compileable(self) -> bool:
        """`torch.compile` works."""
        return True


def _of_inner_model_too(config: LPAConfig, prefix: str) -> LPAConfig:
    """The config with expressions that also mean the inner model alone, whose names lack `prefix`."""
    start, either = f"^{re.escape(prefix)}\\.", f"^(?:{re.escape(prefix)}\\.)?"

    def without(expression: str) -> str:
        return either + expression.removeprefix(start) if expression.startswith(start) else expression

    targets = tuple(without(target) for target in config.targets)
    patterns = {without(pattern): rank for pattern, rank in (config.rank_pattern or {}).items()}
    return config.model_copy(update={"targets": targets, "rank_pattern": patterns or None})


def attach(model: Any, config: LPAConfig) -> None:
    """Record in the model that it was made low-rank with `config`, and which parameters are shared.

    The record stands in a config of the model's own: others may have been built from the same object.
    """
    if not isinstance(model, PreTrainedModel):
        model.lpa_config = config
        return
    _own_config(model)
    quantization = LPAQuantizationConfig(**config.to_dict())
    model.config.quantization_config = quantization
    record: Any = model
    record.hf_quantizer = LPAQuantizer(quantization)
    record.is_quantized = True
    record.quantization_method = METHOD
    if shared := _shared_downs(model):
        record._tied_weights_keys = {**(model._tied_weights_keys or {}), **shared}
        model.all_tied_weights_keys.update(shared)


def _own_config(model: PreTrainedModel) -> None:
    """Give the model and its modules a copy of their config, and of the configs inside it."""
    copies: dict[int, Any] = {}
    copy.deepcopy(model.config, copies)
    for module in model.modules():
        own = copies.get(id(getattr(module, "config", None)))
        if own is not None:
            module.config = own


def _shared_downs(model: nn.Module) -> dict[str, str]:
    """Each parameter of an A that another layer has too (`share_down`) -> its first name."""
    first: dict[int, str] = {}
    shared = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name.rpartition(".")[0].endswith(".down") and first.setdefault(id(parameter), name) != name:
            shared[name] = first[id(parameter)]
    return shared


def detach(model: nn.Module) -> None:
    """Remove that record, and the ranks that the config of a setting-1 model has itself."""
    if not isinstance(model, PreTrainedModel):
        del model.lpa_config
        return
    if recorded_config(model.config) is not None:
        cast(HfQuantizer, model.hf_quantizer).remove_quantization_config(model)
    if model.config.model_type == "lpa_classic":
        model.config.update({"rank": None, "ffn_rank": None})
    record: Any = model
    record.__dict__.pop("_tied_weights_keys", None)
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    record.all_tied_weights_keys = {
        name: first for name, first in model.all_tied_weights_keys.items() if name in names
    }


def lora_targets(model: nn.Module) -> list[str]:
    """The names of all factors A and B of `model`, for the `target_modules` of a PEFT config.

        peft.get_peft_model(model, peft.LoraConfig(target_modules=lpa.lora_targets(model)))

    An adapter sits on one factor, an ordinary `nn.Linear`; on a low-rank layer as a whole (`q_proj`) PEFT
    cannot put one. Raises `LPAError` if the model is not low-rank.
    """
    names = [
        f"{name}.{factor}"
        for name, module in model.named_modules()
        if isinstance(module, LowRankLinear)
        for factor in ("down", "up")
    ]
    if not names:
        raise LPAError(f"{type(model).__name__} has no low-rank layer; name its own layers as LoRA targets")
    return names


def attached_config(model: nn.Module) -> LPAConfig | None:
    """The config that a model was made low-rank with; None for any other model."""
    if not isinstance(model, PreTrainedModel):
        return getattr(model, "lpa_config", None)
    return recorded_config(model.config)


def recorded_config(config: Any) -> LPAConfig | None:
    """The LPA config inside a model's config, None if there is none."""
    quantization = getattr(config, "quantization_config", None)
    if isinstance(quantization, LPAQuantizationConfig):
        return quantization.lpa
    if isinstance(quantization, dict) and quantization.get("quant_method") == METHOD:
        return LPAQuantizationConfig(**quantization).lpa
    return None


def foreign_quantisation(model: nn.Module) -> str | None:
    """The name of the quantisation method of a model that has another one than LPA, in force."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or isinstance(quantizer, LPAQuantizer):
        return None
    config = quantizer.quantization_config
    method = str(getattr(config.quant_method, "value", config.quant_method))
    unpacked = method == "gguf" or getattr(config, "dequantize", False)
    if unpacked and all(parameter.is_floating_point() for parameter in model.parameters()):
        return None  # a quantised file, but its weights are ordinary ones since loading
    return method
