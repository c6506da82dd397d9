"""The priors of the `toedit` command: the one that it takes by itself, and those that are named."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from toedit.cli_options import assignments
from toedit.config import EditConfig

if TYPE_CHECKING:
    from toedit.editor import Editor

SMALL_PRIOR = "smollm2-135m"


def default_model() -> str:
    """The small prior, where the experiment's libraries can bring it; else the same model of the hub."""
    from toedit.editor import DEFAULT_PRIOR

    return SMALL_PRIOR if find_spec("tenfold") and find_spec("lmlab") else DEFAULT_PRIOR


def model_place(model: str) -> str:
    """Where the model is; the small prior is a data set."""
    if model != SMALL_PRIOR:
        return model
    from toedit.reproduce.verb import small_prior

    return small_prior()


def load_editor(
    model: str | None,
    config: EditConfig,
    backend: str,
    options: Sequence[str] | None = None,
    agree: str | None = None,
) -> Editor:
    """`Editor.from_pretrained` of what the options `--model`, `--agree` and `--option` say."""
    from toedit.editor import Editor

    if not sys.stderr.isatty():  # bars of others, which do not look whether there is a terminal
        os.environ.setdefault("TQDM_DISABLE", "1")  # tqdm reads it when it is imported
    place = model_place(model or default_model())
    second = None if agree is None else model_place(agree)
    return Editor.from_pretrained(place, config, backend, agree=second, **assignments("--option", options))
