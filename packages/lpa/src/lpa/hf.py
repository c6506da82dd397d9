"""The plug-in that makes `save_pretrained` and `from_pretrained` of transformers know low-rank models.

transformers lets a quantisation method swap a model's modules before the weights are loaded. LPA registers
itself as such a method: config.json carries the LPA config under `quantization_config`, and any architecture
loads back, once `import lpa` has run. (So `model.is_quantized` is True for a low-rank model, which says no
more than that; its weights are ordinary floating-point parameters and train as such.)
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lpa.config import LPAConfig

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

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        from lpa.surgery import apply_lpa

        return apply_lpa(model, cast(LPAQuantizationConfig, self.quantization_config).lpa)

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


def attach(model: Any, config: LPAConfig) -> None:
    """Record in the model that it was made low-rank with `config`."""
    if not isinstance(model, PreTrainedModel):
        model.lpa_config = config
        return
    quantization = LPAQuantizationConfig(**config.to_dict())
    model.config.quantization_config = quantization
    model.hf_quantizer = LPAQuantizer(quantization)
    model.is_quantized = True
    model.quantization_method = METHOD


def detach(model: nn.Module) -> None:
    """Remove that record, and the ranks that the config of a setting-1 model has itself."""
    if not isinstance(model, PreTrainedModel):
        del model.lpa_config
        return
    if recorded_config(model.config) is not None:
        cast(HfQuantizer, model.hf_quantizer).remove_quantization_config(model)
    if model.config.model_type == "lpa_classic":
        model.config.update({"rank": None, "ffn_rank": None})


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
    """The name of the quantisation method of a model that has another one than LPA."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or isinstance(quantizer, LPAQuantizer):
        return None
    return str(getattr(quantizer.quantization_config, "quant_method", type(quantizer).__name__))
