"""What the verbs of the `toedit` command share: their options, and the settings that these make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from toedit.config import EditConfig
from toedit.errors import ToEditError

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="IN...",
        help="Files (.jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow), folders, patterns, or URLs such as "
        "hf://datasets/OWNER/NAME.",
    ),
]
Model = Annotated[
    Optional[str],  # noqa: UP045  # typer reads it at run time
    typer.Option(
        help="The prior: a hub id, a folder, a GGUF file. By default SmolLM2-135M: the data set smollm2-135m "
        "where toedit[reproduce] is installed, else that of the hub."
    ),
]
Agree = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="MODEL",
        help="A second prior with the same tokenizer: only tokens that both find too easy are edited.",
    ),
]
Backend = Annotated[str, typer.Option(help="transformers, vllm or llama_cpp.")]
Options = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--option", help="For the backend: key=value, such as tensor_parallel_size=4; repeatable."),
]
Preset = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="official (the default), paper, low_drop or filter; other flags go on top."),
]
ConfigFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--config",
        metavar="FILE",
        help="The settings of EditConfig in a .toml file, not a preset; other flags go on top.",
    ),
]
Threshold = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="A token with at least this probability is drawn anew."),
]
TopK = Annotated[Optional[int], typer.Option(help="How many tokens it is drawn from.")]  # noqa: UP045
Temperature = Annotated[Optional[float], typer.Option(help="The temperature of the draw.")]  # noqa: UP045
Seed = Annotated[Optional[int], typer.Option(help="With the document's id it fixes every draw.")]  # noqa: UP045
Window = Annotated[Optional[int], typer.Option(help="Tokens of a window of a long document.")]  # noqa: UP045
Overlap = Annotated[Optional[int], typer.Option(help="Tokens that windows share.")]  # noqa: UP045
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Any other setting of EditConfig: key=value; repeatable."),
]
TextColumn = Annotated[str, typer.Option(help="The column with the text.")]
LayoutName = Annotated[
    str,
    typer.Option(
        "--layout", help="text, messages, prompt-completion or alpaca; of the last three the answers."
    ),
]
LayoutColumn = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--text-column", help="The column with the text or the messages, where it is not called so."
    ),
]
IdColumn = Annotated[str, typer.Option(help="The column with the documents' ids.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def edit_config(
    preset: str | None, file: Path | None, flags: dict[str, Any], settings: Sequence[str] | None
) -> EditConfig:
    """The preset or the file, with the flags that were given, and on top of them what `--set` says."""
    if preset is not None and file is not None:
        raise ToEditError(f"--preset {preset} and --config {file}: each is a whole rule; give one of them")
    rule = EditConfig.preset(preset or "official") if file is None else EditConfig.from_file(file)
    given = {name: value for name, value in flags.items() if value is not None}
    return rule.replace(**{**given, **assignments("--set", settings)})


def check_new_file(path: Path) -> None:
    """Raises `ToEditError` where a file of results cannot be put, before there are any."""
    if path.exists():
        raise ToEditError(f"{path} is there already; give another name")
    if not path.parent.is_dir():
        raise ToEditError(f"{path}: there is no folder {path.parent}; make it, or give another name")


def assignments(option: str, entries: Sequence[str] | None) -> dict[str, Any]:
    """key=value, the value as JSON or else as it is."""
    found: dict[str, Any] = {}
    for entry in entries or ():
        key, sign, value = entry.partition("=")
        if not sign:
            raise ToEditError(f"{option} {entry}: write key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
