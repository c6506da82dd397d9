"""The settings of a run, from a TOML file and from the command's options, which go before the file's."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError

from medxpertqa.engine.asking import Ablation
from medxpertqa.engine.running import Display, EvalRun
from medxpertqa.errors import MedXpertQAError
from medxpertqa.hub import load_questions
from medxpertqa.questions import Question


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Published(_Table):
    """What the paper's row of the same model and questions says: right answers out of how many."""

    n_correct: int = Field(ge=0)
    n: int = Field(ge=1)


class RunSettings(_Table):
    """See `evaluate`; `settings` are inspect-ai's, such as max_tokens, temperature, max_connections."""

    subset: str = "text"
    data: Path | None = None
    images: Path | None = None
    model: str
    base_url: str | None = None
    model_args: dict[str, Any] = {}
    protocol: str = "official-cot"
    demonstrations: Path | None = None
    log_dir: Path
    limit: int | None = Field(None, ge=1)
    sample_ids: list[str] = []
    shard: str = ""
    epochs: int = Field(1, ge=1)
    permute: int = Field(1, ge=1)
    ablate: list[Ablation] = []
    price: tuple[NonNegativeFloat, NonNegativeFloat] | None = None
    cost_limit: float | None = Field(None, gt=0)
    log_text: bool = False
    cache: bool = False
    allow_revision: bool = False
    settings: dict[str, Any] = {}
    published: Published | None = None

    def run(self, display: Display = "none") -> EvalRun:
        """The run, not yet begun."""
        return EvalRun(
            self.subset,
            self.model,
            self.log_dir,
            self.protocol,
            self.data,
            self.images,
            self.base_url,
            self.model_args,
            demonstrations_of(
                self.protocol, self.subset, self.data, self.demonstrations, self.allow_revision
            ),
            self.limit,
            tuple(self.sample_ids),
            self.shard,
            self.epochs,
            self.permute,
            tuple(self.ablate),
            self.price,
            self.cost_limit,
            self.log_text,
            self.cache,
            display,
            self.allow_revision,
            self.settings,
        )


def demonstrations_of(
    protocol: str, subset: str, data: Path | None, given: Path | None, allow_revision: bool = False
) -> tuple[Question, ...]:
    """For few-shot, the questions of the file that was given, or the dev split of a set of the hub.

    Raises `MedXpertQAError` for a file with another protocol, and where few-shot has neither.
    """
    if protocol != "few-shot":
        if given is not None:
            raise MedXpertQAError(f"--demonstrations are for few-shot, and not for {protocol}")
        return ()
    if given is not None:
        return tuple(load_questions("mm" if subset.startswith("mm") else "text", given))
    if data is not None or subset.startswith("synthetic"):
        raise MedXpertQAError(
            "few-shot needs answered questions to show; give a file of them, --demonstrations"
        )
    return tuple(load_questions(f"{subset.partition('/')[0]}/dev", allow_revision=allow_revision))


def read_run_settings(config: Path | None, given: Mapping[str, Any]) -> RunSettings:
    """The settings of a TOML file with those in `given` put in their place, its tables key by key.

    Raises `MedXpertQAError` that names the key, the value and what is allowed.
    """
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise MedXpertQAError(f"{config}: the settings can't be read ({error})") from None
    for key, value in given.items():
        old = values.get(key)
        values[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        where = f"{config}: " if config is not None and name.partition(".")[0] not in given else ""
        option = f"--{name.replace('_', '-')}"
        if first["type"] == "missing":
            raise MedXpertQAError(f"{where}{name} is missing; give {option}, or a --config with it") from None
        raise MedXpertQAError(f"{where}{name} = {first['input']!r}: {first['msg']}") from None
