"""`from_pretrained` for FoPE models: the embeddings are made with the model, and never drawn again silently.

transformers builds a model from its config and then loads weights into it. Two of its functions are
wrapped: at the end of a model's construction a config of the rope type "fope" gets its embeddings, and at
the end of loading coefficients that were not in the checkpoint are an error. Models of other types pass
through untouched.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

from fope.errors import FopeError
from fope.hf.config import read, register
from fope.hf.convert import attach

COEFFICIENTS = ("fope.cos_coef", "fope.sin_coef")


def from_pretrained(path: str | Path, **options: Any) -> PreTrainedModel:
    """A causal language model with FoPE from a folder or the hub; `options` are those of transformers.

    The same as `AutoModelForCausalLM.from_pretrained` after `import fope.hf`, and it checks that what came
    is a FoPE model. Raises `FopeError` if it is not, and where coefficients are missing or have another
    shape.
    """
    model = AutoModelForCausalLM.from_pretrained(path, **options)
    if read(model.config) is None:
        raise FopeError(
            f"{path} is no FoPE model: its rope_type is not 'fope'. `fope.hf.convert_to_fope(model, ...)` "
            "makes it one"
        )
    return model


def install() -> None:
    """Teach transformers; again does nothing more."""
    register()
    if getattr(PreTrainedModel.post_init, "knows_fope", False):
        return
    PreTrainedModel.post_init = _attaching(PreTrainedModel.post_init)  # type: ignore[method-assign]
    finalize = PreTrainedModel._finalize_model_loading
    PreTrainedModel._finalize_model_loading = staticmethod(_refusing(finalize))  # type: ignore[method-assign]


def _attaching(original: Any) -> Any:
    @functools.wraps(original)
    def post_init(self: PreTrainedModel) -> None:
        original(self)
        stored = read(self.config) if hasattr(self, "rotary_emb") else None
        if stored is not None:
            attach(self, stored)

    post_init.knows_fope = True  # type: ignore[attr-defined]
    return post_init


def _refusing(original: Any) -> Any:
    @functools.wraps(original)
    def finalize_model_loading(model: PreTrainedModel, load_config: Any, loading_info: Any) -> Any:
        for key, found, expected in sorted(loading_info.mismatched_keys):
            if key.endswith(COEFFICIENTS):
                raise FopeError(
                    f"{key} is {list(found)} in the checkpoint, but the config gives {list(expected)} "
                    f"([heads, D, R]): R={found[-1]} pairs against R={expected[-1]}. train_length is "
                    "the length the model was trained at, not max_position_embeddings"
                )
        missing = sorted(key for key in loading_info.missing_keys if key.endswith(COEFFICIENTS))
        if missing:
            raise FopeError(
                f"{missing[0]} (and {len(missing) - 1} more) are missing in the checkpoint. Coefficients are "
                "random and not trained, so new ones would make another model; if this is a RoPE checkpoint, "
                "load it with its own config and use convert_to_fope"
            )
        return original(model, load_config, loading_info)

    return finalize_model_loading
