"""A model and its tokenizer from a folder or from the Hugging Face hub; what is not there is told at once.

Libraries are imported where they are used: transformers takes seconds, which a wrong name need not wait for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fope.errors import FopeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HUB_SECONDS = 10.0


def find_model(source: str) -> str:
    """Return what transformers finds the model by: its folder, its hub id, or its folder in the hub's cache.

    The hub is asked once, for at most `HUB_SECONDS`: transformers would try each file for 24 s. Where it does
    not answer, the cache is taken. Raises `FopeError` where there is neither a folder nor such a model.
    """
    if Path(source).is_dir():
        return source
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    missing = f"there is no folder {source}"
    try:
        HfApi().model_info(source, timeout=HUB_SECONDS)
        return source
    except HFValidationError as error:
        raise FopeError(f"{missing}, and it is no hub id, which is NAME or OWNER/NAME") from error
    except RepositoryNotFoundError as error:
        raise FopeError(
            f"{missing}, and the hub has no model {source} for you; a private one needs `hf auth login`"
        ) from error
    except Exception as error:  # without a network: of the HTTP client, another one in each huggingface_hub
        reason = _first_line(error)
    try:
        return str(snapshot_download(source, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise FopeError(
            f"{missing}; as a hub id it is not in the cache, and the hub does not answer ({reason})"
        ) from error


def load_model(source: str) -> PreTrainedModel:
    """The causal language model that `find_model` found. Raises `FopeError` if it cannot be loaded."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source)
        return model
    except FopeError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise FopeError(f"the model {source} cannot be loaded: {_first_line(error)}") from error


def load_tokenizer(source: str) -> Any:
    """The tokenizer that stands beside the model. Raises `FopeError` if there is none that can be loaded."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (ImportError, OSError, ValueError) as error:
        raise FopeError(f"{source} has no tokenizer that can be loaded: {_first_line(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes an empty one for some models
        raise FopeError(f"{source} has no tokenizer")
    return tokenizer


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
