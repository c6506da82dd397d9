"""A model by its folder or by its id on the Hugging Face hub; what is nowhere is told at once.

transformers is imported where it is used: it takes seconds, which a wrong name need not wait for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memoryformer.errors import MemoryFormerError

if TYPE_CHECKING:
    from memoryformer.hf.config import MemoryFormerConfig

HUB_SECONDS = 10.0


def find_model(source: str) -> str:
    """Return what transformers finds the model by: its folder, its hub id, or its folder in the hub's cache.

    The hub is asked once, where transformers would try again for 24 s a file. Raises `MemoryFormerError`
    where there is neither a folder nor such a model.
    """
    if Path(source).is_dir():
        return source
    if Path(source).exists():
        raise MemoryFormerError(f"{source} is a file; a model is a folder, or an id on the Hugging Face hub")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    missing = f"the model {source} cannot be loaded: there is no folder {source}"
    try:
        HfApi().model_info(source, timeout=HUB_SECONDS)
        return source
    except HFValidationError as error:  # told without a question to the hub
        raise MemoryFormerError(f"{missing}, and it is no hub id, which is NAME or OWNER/NAME") from error
    except Exception as error:  # no such model, or no network: of the HTTP client, which has changed before
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    try:
        return snapshot_download(source, local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise MemoryFormerError(f"{missing}, and the hub has no such model in reach ({reason})") from error


def load_model(source: str) -> tuple[Any, Any]:
    """A causal language model in evaluation mode, on the accelerator if there is one, and its tokenizer.

    Raises `MemoryFormerError` if it is nowhere, or its files are damaged or do not fit together.
    """
    found = find_model(source)
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    import memoryformer.hf  # noqa: F401  # so that transformers knows the model type

    if not sys.stderr.isatty():
        disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(found)
        tokenizer = AutoTokenizer.from_pretrained(found)
    except MemoryFormerError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise MemoryFormerError(f"the model {source} cannot be loaded: {reason}") from error
    except SafetensorError as error:
        raise MemoryFormerError(f"the weights of {source} are damaged or cut short: {error}") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise MemoryFormerError(
            f"the weights of {source} have other sizes than its config.json says: correct it, or load "
            "the checkpoint it belongs to"
        ) from error
    if torch.accelerator.is_available():
        torch.nn.Module.to(model, torch.accelerator.current_accelerator())
    return model.eval(), tokenizer


def load_config(source: str) -> MemoryFormerConfig:
    """The config of a saved MemoryFormer. Raises `MemoryFormerError` if there is none, or another model's."""
    found = find_model(source)
    from transformers import AutoConfig

    from memoryformer.hf.config import MemoryFormerConfig

    try:
        config = AutoConfig.from_pretrained(found)
    except MemoryFormerError:
        raise
    except (OSError, ValueError) as error:
        raise MemoryFormerError(f"{source} has no config that can be read: {error}") from error
    if not isinstance(config, MemoryFormerConfig):
        raise MemoryFormerError(f"{source} is a {config.model_type} model; flops counts MemoryFormer models")
    return config
