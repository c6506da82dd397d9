"""OmniRL for transformers: `AutoModel` and `AutoConfig` know the models after `import omnirl.hf`.

import omnirl.hf
from transformers import AutoModel
model = AutoModel.from_pretrained("folder")         # what save_pretrained of this class wrote
model = omnirl.hf.wrap(omnirl.OmniRL.from_pretrained("omnirl/mini"))
"""

from __future__ import annotations

from typing import Any

from omnirl.errors import MissingExtraError
from omnirl.model.config import OmniRLConfig
from omnirl.model.modeling import OmniRL, OmniRLOutput

try:
    from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
except ImportError as error:
    raise MissingExtraError("omnirl.hf needs transformers: pip install 'omnirl-icrl[hf]'") from error


class OmniRLHubConfig(PreTrainedConfig):
    """`OmniRLConfig` as transformers carries it, under the key `omnirl` of config.json."""

    model_type = "omnirl"

    def __init__(self, omnirl: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.omnirl = dict(omnirl or {})
        super().__init__(**kwargs)


class OmniRLHubModel(PreTrainedModel):
    """A model of transformers that holds an `OmniRL` as `omnirl` and is called like it."""

    config_class = OmniRLHubConfig
    base_model_prefix = "omnirl"
    main_input_name = "observations"

    def __init__(self, config: OmniRLHubConfig) -> None:
        super().__init__(config)
        self.omnirl = OmniRL(OmniRLConfig.from_dict(config.omnirl))
        self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> OmniRLOutput:
        """See `OmniRL.forward`."""
        output: OmniRLOutput = self.omnirl(*args, **kwargs)
        return output

    def _init_weights(self, module: Any) -> None:
        """The modules have drawn their weights when they were made."""


def wrap(model: OmniRL) -> OmniRLHubModel:
    """A model of transformers with the weights of `model` (shared, not copied)."""
    hub = OmniRLHubModel(OmniRLHubConfig(model.config.to_dict()))
    hub.omnirl = model
    return hub


AutoConfig.register("omnirl", OmniRLHubConfig)
AutoModel.register(OmniRLHubConfig, OmniRLHubModel)
