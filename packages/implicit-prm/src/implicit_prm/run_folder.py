"""Of which run a training folder is: its recipe is noted there, so that no other one goes on from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.secrecy import without_secrets

NOTE = "recipe.json"
RESULTS = "all_results.json"

ANEW = "give the same, another training.output_dir, or --no-resume (resume=False) to start anew"

Tables = Mapping[str, Any]


def plain_recipe(recipe: Tables) -> dict[str, Any]:
    """The tables of a recipe as JSON keeps them, without keys and tokens."""
    plain: dict[str, Any] = json.loads(json.dumps(without_secrets(recipe), default=str))
    return plain


def differences(there: Tables, now: Tables, free: Collection[str] = ()) -> str:
    """What differs in two recipes, for people; "" if nothing does. `free` names "table.key" that may."""
    old, new = _flat(there), _flat(now)
    keys = [key for key in {**old, **new} if not any(f"{key}.".startswith(f"{name}.") for name in free)]
    return "; ".join(
        f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in keys if old.get(key) != new.get(key)
    )


def check_run(folder: Path, recipe: Tables, free: Collection[str], resume: bool) -> None:
    """May a run of this recipe, as `plain_recipe` gives it, write to the folder?

    Raises `ImplicitPRMError` for checkpoints of which nothing says what made them, and with `resume` for
    those of another recipe.
    """
    note = folder / NOTE
    if not note.exists():
        if found := next(iter(sorted(folder.glob("checkpoint-*"))), None):
            raise ImplicitPRMError(
                f"{folder} has {found.name}, and {NOTE}, which would say what made it, is not there; give "
                "another training.output_dir"
            )
        return
    try:
        there = dict(json.loads(note.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ImplicitPRMError(f"{note} is damaged ({error}); give another training.output_dir") from error
    if resume and (changed := differences(there, recipe, free)):
        raise ImplicitPRMError(f"{folder} holds another run: {changed}; {ANEW}")


def begin_run(folder: Path, recipe: Tables, resume: bool) -> None:
    """Note the recipe; without `resume` the checkpoints and results of the run before are removed first."""
    if not resume:
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        (folder / RESULTS).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{NOTE}.part"
    part.write_text(json.dumps(recipe, indent=2) + "\n", "utf-8")
    os.replace(part, folder / NOTE)


def is_finished(folder: Path) -> bool:
    """Whether the run's results are there, which it writes last."""
    try:
        return "train_loss" in json.loads((folder / RESULTS).read_text("utf-8"))
    except (OSError, ValueError):
        return False


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    parts = (_flat(part, f"{prefix}.{key}" if prefix else str(key)) for key, part in value.items())
    return {key: leaf for part in parts for key, leaf in part.items()}
