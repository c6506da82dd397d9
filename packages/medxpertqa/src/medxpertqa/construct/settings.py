"""The settings of a construction: one TOML file, a table a stage; a stage without its table is left out."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medxpertqa.construct.human import TOP_PERCENT, Level, Normalisation
from medxpertqa.construct.voting import Mixed
from medxpertqa.errors import MedXpertQAError

Percent = Annotated[float, Field(ge=0, le=100)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(_Table):
    """An OpenAI-compatible endpoint; the key is read from the environment variable `key_variable`.

    `max_connections` requests at once are sent to it.
    """

    model: str
    base_url: str
    key_variable: str = "OPENAI_API_KEY"
    max_connections: int = Field(10, ge=1)

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine, so that no text leaves it."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class HumanStage(_Table):
    """See `human_filter`; `normalise` is how questions with other numbers of options compare, see `brier`."""

    normalise: Normalisation = "paper"
    mode: Literal["top", "literal"] = "top"
    top_percent: dict[Level, Percent] = dict(TOP_PERCENT)
    min_responses: int = Field(1, ge=1)


class AIStage(_Table):
    """See `ai_expert_filter`; the temperature is not the paper's, which states none."""

    basic: list[ModelSettings] = Field(min_length=1)
    advanced: list[ModelSettings] = []
    samples: int = Field(4, ge=1)
    temperature: float = Field(0.7, ge=0)
    max_tokens: int = Field(2048, ge=1)
    mixed: Mixed = "advanced_wrong"

    @model_validator(mode="after")
    def _no_model_twice(self) -> AIStage:
        names = [(model.model, model.base_url) for model in self.basic + self.advanced]
        twice = next((model for model, address in names if names.count((model, address)) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is named twice: each model votes once")
        return self


class EditStage(_Table):
    """See `edit_similar_pairs`; with `fences` the threshold is judged by all pairs (`edit_fences`)."""

    threshold: float = Field(0.8, gt=0, le=1)
    fences: bool = False


class SemanticStage(_Table):
    """See `semantic_similar_pairs`; `embedder` is "tfidf", or a hub's model up to `max_length` tokens."""

    embedder: str = "tfidf"
    max_length: int = Field(512, ge=1)
    scope: Literal["nearest", "pairs"] = "nearest"
    k: float = Field(3.0, ge=0)


class PruneStage(_Table):
    """See `prune_options`."""

    min_rate: float = Field(0.05, ge=0, le=1)


class ExpandStage(_Table):
    """See `expand_options`; without `n_options` a question gets the paper's, 10 in Text and 5 in MM."""

    generator: ModelSettings
    checker: ModelSettings | None = None
    n_options: int | None = Field(None, ge=3, le=26)


class RewriteStage(_Table):
    """See `rewrite`; without models, by the rule."""

    models: list[ModelSettings] = []


class LabelStage(_Table):
    """See `label_question`."""

    model: ModelSettings


class BuildSettings(_Table):
    """All stages in the paper's order. Own banks may hold patients' data: see `phi_checked`.

    `images` is the ZIP or the folder of the questions' images, for the AI filter.
    """

    seed: int = 0
    images: str | None = None
    phi_checked: bool = False
    human: HumanStage | None = None
    ai: AIStage | None = None
    edit: EditStage | None = None
    semantic: SemanticStage | None = None
    prune: PruneStage | None = None
    rewrite: RewriteStage | None = None
    expand: ExpandStage | None = None
    shuffle: bool = False
    labels: LabelStage | None = None

    def models(self) -> list[ModelSettings]:
        """Every model that a stage asks."""
        found = [*(self.ai.basic + self.ai.advanced if self.ai else [])]
        found += self.rewrite.models if self.rewrite else []
        found += [m for m in (self.expand.generator, self.expand.checker) if m] if self.expand else []
        return found + ([self.labels.model] if self.labels else [])

    def check_privacy(self) -> None:
        """Raise `MedXpertQAError` if texts would leave the machine unchecked."""
        remote = [model.base_url for model in self.models() if not model.is_local]
        if remote and not self.phi_checked:
            raise MedXpertQAError(
                f"{remote[0]} is not on this machine: make sure that the bank holds no patient's data, "
                "then set phi_checked = true"
            )


def read_settings(path: str | Path) -> BuildSettings:
    """Read the TOML file. Raises `MedXpertQAError` that names the key, the value and what is allowed."""
    try:
        return BuildSettings.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MedXpertQAError(f"{path}: the settings can't be read ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MedXpertQAError(f"{path}: {where} = {first['input']!r}: {first['msg']}") from None
