"""A training run in a file: model, reference, data and settings, for `implicit-prm train --config run.toml`.

    [model]
    name = "meta-llama/Llama-3.1-8B-Instruct"     # hub id or folder of a causal LM, or of an adapter of PEFT,
                                                  # which is trained on; its base is then the reference
    reference = "..."                             # if it is not a frozen copy of the model
    dtype = "bfloat16"                            # of the weights; by default the checkpoint's own
    attn_implementation = "flash_attention_2"

    [lora]                                        # peft.LoraConfig; the base model is then the reference
    r = 64
    target_modules = "all-linear"

    [data]
    train = ["rollouts.jsonl"]                    # files, or hub data sets as "hf:owner/name:split"
    eval = []

    [training]                                    # ImplicitPRMConfig, with all of TrainingArguments
    output_dir = "out"
    loss = "ce"

Paths are relative to where the command is run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from implicit_prm.errors import ImplicitPRMError


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is trained, and its reference."""

    name: str
    reference: str | None = None
    dtype: str = "auto"
    attn_implementation: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Files of JSON lines, or hub data sets as "hf:owner/name:split"."""

    train: list[str]
    eval: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run; `training` is for `ImplicitPRMConfig`, `lora` for `peft.LoraConfig`."""

    model: ModelSettings
    data: DataSettings
    training: dict[str, Any]
    lora: dict[str, Any] | None = None


def read_recipe(path: str | Path, assignments: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a TOML file, with values changed: {"training.learning_rate": 1e-6}.

    Raises `ImplicitPRMError` for a file that is not there or is no TOML, for unknown tables and keys and for
    missing ones; the values of [training] are judged when the run is built.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ImplicitPRMError(f"there is no file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ImplicitPRMError(f"{path} is no TOML: {error}") from error
    try:
        return _recipe(_changed(tables, assignments or {}))
    except ImplicitPRMError as error:
        raise ImplicitPRMError(f"{path}: {error}") from error


def _changed(tables: dict[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ImplicitPRMError(f"{name} is {table!r}; it must be a table, [{name}]")
    changed = {name: dict(table) for name, table in tables.items()}
    for key, value in assignments.items():
        name, dot, entry = key.partition(".")
        if not dot:
            raise ImplicitPRMError(f"{key!r} is no key of a recipe: write table.key, as in training.loss")
        changed.setdefault(name, {})[entry] = value
    return changed


def _is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _recipe(tables: dict[str, Any]) -> Recipe:
    _check_keys("it", tables, Recipe, "tables")
    model, data = tables["model"], tables["data"]
    _check_keys("[model]", model, ModelSettings, "keys")
    _check_keys("[data]", data, DataSettings, "keys")
    for name, value in model.items():
        if not isinstance(value, str):
            raise ImplicitPRMError(f"model.{name} is {value!r}; it must be text")
    for name, value in data.items():
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise ImplicitPRMError(f"data.{name} is {value!r}; it must be a list of files or hub data sets")
    if not data["train"]:
        raise ImplicitPRMError("data.train is empty; name at least one file")
    return Recipe(
        model=ModelSettings(**model),
        data=DataSettings(**data),
        training=tables["training"],
        lora=tables.get("lora"),
    )


def _check_keys(where: str, given: Mapping[str, Any], settings: type, what: str) -> None:
    known = {each.name: each for each in fields(settings)}
    if unknown := sorted(given.keys() - known.keys()):
        raise ImplicitPRMError(f"{where} has {unknown[0]!r}; its {what} are {', '.join(known)}")
    required = {name for name, each in known.items() if _is_required(each)}
    if missing := sorted(required - given.keys()):
        raise ImplicitPRMError(f"{where} lacks {', '.join(missing)}")
