r"""A run in a file: models, data, verifiers and settings, for `implicit-prime train run.toml`.

    [model]
    name = "PRIME-RL/Eurus-2-7B-SFT"              # the policy: hub id or folder of a causal LM
    prm = "..."                                   # if the PRM does not begin as the policy
    dtype = "float32"                             # of the weights; another one only for a frozen base
    attn_implementation = "flash_attention_2"
    gradient_checkpointing = true

    [lora]                                        # peft.LoraConfig: adapters of one base for policy and PRM

    [data]
    train = ["tasks.jsonl"]                       # files, or hub data sets as "hf:owner/name:split"
    eval = { math500 = "hf:HuggingFaceH4/MATH-500:test" }   # by name: a source, or a list of them
    system = "..."                                # before questions that are text
    suffix = "\n\nPresent the answer in LaTex format: \\boxed{Your answer}"

    [verifier.math]                               # MathVerifier; beside or instead of it [verifier.code]
    extract = "boxed"

    [training]                                    # PrimeConfig
    output_dir = "runs/eurus"

Paths are relative to where the command is run.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from implicit_prime.config import PrimeConfig
from implicit_prime.errors import PrimeError
from implicit_prime.verifiers.named import check_verifiers


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The policy and how it is loaded; `prm` None begins as the policy."""

    name: str
    prm: str | None = None
    dtype: str = "float32"
    attn_implementation: str | None = None
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where tasks come from (see `tasks.read_tasks`), and what is put around their questions."""

    train: list[str] = field(default_factory=list)
    eval: dict[str, str | list[str]] = field(default_factory=dict)
    system: str | None = None
    suffix: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run; `verifier` is for `named_verifier`, `lora` for `peft.LoraConfig`."""

    model: ModelSettings
    data: DataSettings
    verifier: dict[str, dict[str, Any]]
    training: PrimeConfig
    lora: dict[str, Any] | None = None


def read_recipe(path: str | Path, assignments: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a TOML file, with values changed: {"training.learning_rate": 1e-6}.

    Raises `PrimeError` for a file that is not there or is no TOML, for unknown tables and keys, for missing
    ones, and for values that cannot be.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrimeError(f"there is no file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PrimeError(f"{path} is no TOML: {error}") from error
    try:
        for key, value in (assignments or {}).items():
            _assign(tables, key, value)
        return _recipe(tables)
    except PrimeError as error:
        raise PrimeError(f"{path}: {error}") from error


def _assign(tables: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    if not path:
        raise PrimeError(f"{key!r} is no key of a recipe: write table.key, as in training.beta")
    for name in path:
        tables = tables.setdefault(name, {})
        if not isinstance(tables, dict):
            raise PrimeError(f"{name} in {key!r} is no table")
    tables[last] = value


def _recipe(tables: dict[str, Any]) -> Recipe:
    _check_keys("it", tables, Recipe, "tables")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise PrimeError(f"{name} is {table!r}; it must be a table, [{name}]")
    _check_keys("[model]", tables["model"], ModelSettings, "keys")
    _check_keys("[data]", tables["data"], DataSettings, "keys")
    model, data = ModelSettings(**tables["model"]), DataSettings(**tables["data"])
    for name in ("name", "prm", "dtype", "attn_implementation"):
        value = getattr(model, name)
        _require(f"model.{name}", value, value is None or isinstance(value, str), "text")
    switch = model.gradient_checkpointing
    _require("model.gradient_checkpointing", switch, isinstance(switch, bool), "true or false")
    for name in ("system", "suffix"):
        value = getattr(data, name)
        _require(f"data.{name}", value, value is None or isinstance(value, str), "text")
    listed = isinstance(data.train, list) and _texts(data.train)
    _require("data.train", data.train, listed, "a list of files or hub data sets")
    named = isinstance(data.eval, dict) and all(
        isinstance(source, str) or (isinstance(source, list) and source and _texts(source))
        for source in data.eval.values()
    )
    _require("data.eval", data.eval, named, "a table of names, with a file or hub data set each, or a list")
    lora = tables.get("lora")
    if lora is None and model.dtype != "float32":
        raise PrimeError(
            f"model.dtype is {model.dtype!r}: the paper's steps are lost in weights of less than float32; "
            "launch with mixed_precision bf16 to compute in that, or train an adapter, [lora]"
        )
    check_verifiers(tables["verifier"])
    training = PrimeConfig.from_dict(tables["training"])
    return Recipe(model=model, data=data, verifier=tables["verifier"], training=training, lora=lora)


def _check_keys(where: str, given: Mapping[str, Any], settings: type, what: str) -> None:
    known = {each.name: each for each in fields(settings)}
    if unknown := sorted(given.keys() - known.keys()):
        raise PrimeError(f"{where} has {unknown[0]!r}; its {what} are {', '.join(known)}")
    required = {
        name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING
    }
    if missing := sorted(required - given.keys()):
        raise PrimeError(f"{where} lacks {', '.join(missing)}")


def _texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _require(name: str, value: object, holds: bool, allowed: str) -> None:
    if not holds:
        raise PrimeError(f"{name} is {value!r}; it must be {allowed}")
