"""Configs: a TOML file a scale in the experiment's package, changed by `--set key=value`."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from tenfold.claims import SCALES
from tenfold.errors import UsageError

if TYPE_CHECKING:
    from tenfold.experiments import Experiment

Config = TypeVar("Config", bound=BaseModel)


def available_scales(experiment: Experiment) -> list[str]:
    """Return the scales for which the experiment has a config, smallest first."""
    folder = resources.files(experiment.configs)
    return [scale for scale in SCALES if (folder / f"{scale}.toml").is_file()]


def load_config(experiment: Experiment, scale: str, assignments: Iterable[str] = ()) -> BaseModel:
    """Return the experiment's config at `scale` with `key=value` assignments applied.

    Raises `UsageError` naming the scales there are, or the key, the value and what is allowed.
    """
    scales = available_scales(experiment)
    if scale not in scales:
        there = ", ".join(scales) or "none"
        launch = "; what runs at the paper's scale is in its package's launch/" if scale == "paper" else ""
        raise UsageError(f"{experiment.name} has no scale {scale!r}; it has: {there}{launch}")
    file = resources.files(experiment.configs) / f"{scale}.toml"
    what = f"the config of {experiment.name} at scale {scale}"
    return read_config(file, experiment.config_model, assignments, what)


def read_config(
    file: Path | Traversable, model: type[Config], assignments: Iterable[str] = (), what: str = ""
) -> Config:
    """Return the TOML `file` with `key=value` assignments applied, as a `model`.

    Raises `UsageError` for a file that is not there or no TOML, or naming the key, the value and what is
    allowed; it begins with `what` (else the file's name).
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no config file {file}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not TOML: {error}") from error
    return make_config(values, model, assignments, what or str(file))


def make_config(
    values: dict[str, Any], model: type[Config], assignments: Iterable[str] = (), what: str = "the config"
) -> Config:
    """Return `values`, what a TOML file holds, changed in place by `key=value` assignments, as a `model`.

    Raises `UsageError`, which begins with `what` and names the key, the value and what is allowed.
    """
    for assignment in assignments:
        _assign(values, assignment)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_explain(problem, model) for problem in error.errors(include_url=False)]
        raise UsageError(f"{what}: {'; '.join(problems)}") from error


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a new table, `values` with the changes: tables go into tables, all else is replaced."""
    both = dict(values)
    for key, value in changes.items():
        before = both.get(key)
        inner = before if isinstance(before, Mapping) else {}
        both[key] = merged(inner, value) if isinstance(value, Mapping) else value
    return both


def plain_config(config: BaseModel) -> dict[str, Any]:
    """Return the config as TOML can hold it; a None, which TOML lacks, is left out."""
    return config.model_dump(mode="json", exclude_none=True)


def config_sha256(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a plain config, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return {dotted key: (before, now)} of all that differs; None stands for an absent key."""
    old, new = dict(_flat(before)), dict(_flat(now))
    keys = dict.fromkeys([*old, *new])
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _assign(values: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(
            f"--set {assignment!r}: write it as key=value, with dots for tables: training.steps=10"
        )
    table: Any = values
    for depth, part in enumerate(parts[:-1]):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"--set {assignment!r}: {'.'.join(parts[: depth + 1])} is not a table but {table!r}"
            )
    table[parts[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    """Read a TOML value; what is none is taken as a string, so that `--set name=docs` needs no quotes."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _explain(problem: Any, model: type[BaseModel]) -> str:
    """Return one complaint of pydantic for people: the key, the value, what is allowed."""
    *parents, last = [str(part) for part in problem["loc"]] or [""]
    key = ".".join([*parents, last])
    if problem["type"] == "extra_forbidden":
        allowed = _keys_at(model, parents)
        close = difflib.get_close_matches(last, allowed, n=1)
        hint = f" (did you mean {'.'.join([*parents, close[0]])}?)" if close else ""
        where = f" of {'.'.join(parents)}" if parents else ""
        return f"there is no key {key!r}{hint}; the keys{where} are: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key} = {problem['input']!r}: {message[0].lower()}{message[1:]}" if key else message


def _keys_at(model: type[BaseModel], parents: list[str]) -> list[str]:
    """Return the keys of the table at `parents`, following nested models through lists and unions."""
    models = [model]
    for part in parents:
        fields = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        if fields:  # else `part` is an index or the name of a union's member: same models as before
            models = [found for annotation in fields for found in _models_in(annotation)]
    return list(dict.fromkeys(name for m in models for name in m.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in _models_in(argument)]
