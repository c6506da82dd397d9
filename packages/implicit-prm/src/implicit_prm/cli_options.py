"""What several verbs of the `implicit-prm` command share: options, and how they begin and end."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Optional

import typer

from implicit_prm import terminal
from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning

Model = Annotated[str, typer.Option(help="A causal LM: a hub id, a folder, a GGUF file, an adapter of PEFT.")]
Backend = Annotated[str, typer.Option(help="hf (transformers), vllm or openai (a server).")]
Options = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads it at run time
    typer.Option(
        "--option",
        help="For the backend: key=value, such as dtype=bfloat16, tensor_parallel_size=4 or "
        "url=http://localhost:8000/v1; repeatable. A server's key is taken from OPENAI_API_KEY.",
    ),
]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Change a value of the config: key=value, dots for tables; repeatable."),
]
ShardOf = Annotated[
    str, typer.Option("--shard", help="This part of the file alone, such as 1/4; give each part its own OUT.")
]
Steps = Annotated[
    str,
    typer.Option(help="Where steps end: paragraph, line, step_header, sentence, token or regex:PATTERN."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def assignments(option: str, entries: Sequence[str] | None) -> dict[str, Any]:
    """key=value, the value as JSON or else as it is. Raises `ImplicitPRMError` for an entry without =."""
    found: dict[str, Any] = {}
    for entry in entries or ():
        key, sign, value = entry.partition("=")
        if not sign:
            raise ImplicitPRMError(f"{option} {entry}: write key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


@contextmanager
def interruptible(goes_on: str = "the same command goes on where it stopped") -> Iterator[None]:
    """Ctrl-C ends with exit code 130, and says what the user can do."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.tell(f"implicit-prm: interrupted; {goes_on}")
        raise typer.Exit(130) from None


def quiet_bars() -> None:
    """Without a terminal no bars, also of others that do not look whether there is one."""
    if not sys.stderr.isatty():
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()


def check_steps(how: str) -> None:
    """Raise `ImplicitPRMError` for an unknown way to split, before a model is loaded."""
    from implicit_prm.steps import split_steps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitPRMWarning)  # that this word is one step
        split_steps("word", how, [(0, 4)])
