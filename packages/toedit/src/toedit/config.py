"""Which tokens are edited, and from which distribution the new ones are drawn."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

from toedit.errors import ToEditError

Condition: TypeAlias = Literal["ge", "le"]
Sampler: TypeAlias = Literal["top_k", "top_p", "min_p", "rejection"]
Low: TypeAlias = Literal["keep", "drop"]

_CHOICES = {
    "condition": ("ge", "le"),
    "sampler": ("top_k", "top_p", "min_p", "rejection"),
    "low": ("keep", "drop"),
    "add_bos": ("auto", True, False),
}
# A setting that one sampler reads, and its value where that sampler is chosen and nothing is said.
_OF_SAMPLER = {
    "top_p": ("top_p", 0.99),
    "min_p": ("min_p", None),
    "rejection_temperature": ("rejection", 1.0),
}

# A probability never reaches this, so no token fulfils "at least this".
OFF = 2.0


@dataclass(frozen=True)
class EditConfig:
    """The rule of section 2: what is edited (c_i) and how the new token is drawn (Q_i).

    What is edited. A token x_i is a candidate if P(x_i | x_<i) >= `threshold` (`condition="ge"`), or <= it
    (`"le"`, the paper's ablation); `inclusive=False` makes the comparison strict, as in the official script.
    A threshold above 1 turns editing off. `low="drop"` deletes tokens with P < `low_threshold`.
    `protect` names what is never touched: regular expressions, token ids, and "code", "emails", "math",
    "numbers" and "urls" (`protection.PATTERNS`).
    `max_edit_fraction` is the largest share of a document's tokens that may be changed or dropped.

    How it is drawn. `sampler` cuts the candidate set out of the `top_k` most probable tokens: "top_k" takes
    all of them; "top_p" the fewest whose probabilities reach `top_p` (with a threshold of at least `top_p`
    that is the original token alone: nothing changes); "min_p" those with P >= `min_p` times the largest;
    "rejection" draws from all and accepts with probability (P / P_max) ** (1 / `rejection_temperature`).
    Then q_j is proportional to P_j ** (1 / `temperature`) over the set. `exclude_original` takes the
    original token out of it, so that every candidate with another token in its set changes.
    `avoid_specials` neither draws nor replaces special tokens (BOS, EOS, padding, control tokens).

    Scoring. Documents longer than `window` tokens are scored in windows that share `overlap` tokens;
    `add_bos` prepends the beginning-of-text token, so that the first token is scored too ("auto": where the
    tokenizer does so itself). `seed` and the document's id fix every draw.

    Raises `ToEditError` naming the key, the value and what is allowed.
    """

    threshold: float = 0.99
    condition: Condition = "ge"
    inclusive: bool = True
    sampler: Sampler = "top_k"
    top_k: int = 8
    top_p: float | None = None
    temperature: float = 1.5
    low: Low = "keep"
    low_threshold: float = 1e-3
    exclude_original: bool = False
    avoid_specials: bool = True
    protect: tuple[str | int, ...] = ()
    max_edit_fraction: float | None = None
    window: int = 2048
    overlap: int = 256
    add_bos: Literal["auto"] | bool = "auto"
    seed: int = 0
    min_p: float | None = None
    rejection_temperature: float | None = None

    def __post_init__(self) -> None:
        self._set("protect", _protected(self.protect))
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            # `1 == True`, and a number is no answer to a question of yes or no.
            if not any(type(value) is type(choice) and value == choice for choice in choices):
                _refuse(name, value, f"one of {', '.join(map(repr, choices))}")
        for name in ("inclusive", "exclude_original", "avoid_specials"):
            if not isinstance(getattr(self, name), bool):
                _refuse(name, getattr(self, name), "True or False")
        self._check_numbers()
        for name, (sampler, default) in _OF_SAMPLER.items():
            self._settle_sampler_setting(name, sampler, default)
        self._check_pairs()

    @classmethod
    def preset(cls, name: str, **changes: Any) -> EditConfig:
        """A named rule, with `changes` on top.

        "official" is the official script's `up_revise` (temperature 1.5) and the default; "paper" has
        temperature 1, since the text names none; "low_drop" is `low_drop_up_revise` (temperature 1, and
        tokens with P < 0.001 are deleted); "filter" is `filtering` (deletes them and edits nothing).

        Raises `ToEditError` for an unknown name and for impossible changes.
        """
        if name not in PRESETS:
            raise ToEditError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
        return cls.from_dict({**PRESETS[name], **changes})

    def replace(self, /, **changes: Any) -> EditConfig:
        """The same rule with other values; another `sampler` forgets what only the old one used.

        Raises `ToEditError` for unknown keys and impossible values.
        """
        kept = self.to_dict()
        if "sampler" in changes:
            kept = {name: value for name, value in kept.items() if name not in _OF_SAMPLER}
        return self.from_dict({**kept, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every key."""
        return {**asdict(self), "protect": list(self.protect)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EditConfig:
        """The config that `to_dict` wrote; missing keys have their defaults.

        Raises `ToEditError` for unknown keys and impossible values.
        """
        if not isinstance(values, Mapping):
            raise ToEditError(f"a config is a table of settings, not {type(values).__name__}: {values!r}")
        _check_names(values)
        return cls(**values)

    def to_json(self) -> str:
        """The settings as a JSON object."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EditConfig:
        """The config that `to_json` wrote. Raises `ToEditError` for broken JSON, and as `from_dict` does."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ToEditError(f"the config is not valid JSON: {error}") from error
        return cls.from_dict(values)

    def to_yaml(self) -> str:
        """The settings as YAML."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> EditConfig:
        """The config that `to_yaml` wrote. Raises `ToEditError` for broken YAML, and as `from_dict` does."""
        import yaml

        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ToEditError(f"the config is not valid YAML: {' '.join(str(error).split())}") from error
        return cls.from_dict(values)

    def to_toml(self) -> str:
        """The settings as TOML, which has no null: what is None is left out."""
        given = {name: value for name, value in self.to_dict().items() if value is not None}
        return "".join(f"{name} = {_toml(value)}\n" for name, value in given.items())

    @classmethod
    def from_toml(cls, text: str) -> EditConfig:
        """The config that `to_toml` wrote. Raises `ToEditError` for broken TOML, and as `from_dict` does."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ToEditError(f"the config is not valid TOML: {error}") from error
        return cls.from_dict(values)

    @classmethod
    def from_file(cls, path: str | Path) -> EditConfig:
        """The config of a file in TOML, JSON or YAML (`.yaml`, `.yml`); missing keys have their defaults.

        Raises `ToEditError` naming the file: where it is missing or of another kind, and as `from_dict`.
        """
        read = {
            ".toml": cls.from_toml,
            ".json": cls.from_json,
            ".yaml": cls.from_yaml,
            ".yml": cls.from_yaml,
        }
        if Path(path).suffix not in read:
            raise ToEditError(f"{path}: a file of settings ends in one of {', '.join(read)}")
        try:
            return read[Path(path).suffix](Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ToEditError) as error:
            raise ToEditError(f"{path}: {getattr(error, 'strerror', None) or error}") from error

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_numbers(self) -> None:
        self._real("threshold", lambda p: p > 0, "above 0 and at most 1, or above 1 to edit nothing")
        self._real("temperature", lambda t: t > 0, "above 0")
        self._real("low_threshold", lambda p: 0 < p < 1, "between 0 and 1")
        for name, wanted in (("top_p", "above 0 and at most 1"), ("min_p", "above 0 and at most 1")):
            self._real(name, lambda p: 0 < p <= 1, wanted, optional=True)
        self._real("max_edit_fraction", lambda f: 0 <= f <= 1, "from 0 to 1, or None", optional=True)
        self._real("rejection_temperature", lambda t: t > 0, "above 0", optional=True)
        self._whole("top_k", 1)
        self._whole("window", 2)
        self._whole("overlap", 0)
        self._whole("seed", None)

    def _real(self, name: str, allowed: Any, wanted: str, *, optional: bool = False) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not is_number or not allowed(value):
            _refuse(name, value, f"a number {wanted}")
        self._set(name, float(value))

    def _whole(self, name: str, least: int | None) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
            _refuse(name, value, "a whole number" + ("" if least is None else f", at least {least}"))

    def _settle_sampler_setting(self, name: str, sampler: str, default: float | None) -> None:
        if self.sampler != sampler:
            if getattr(self, name) is not None:
                raise ToEditError(
                    f"{name} is {getattr(self, name)!r}, but sampler={self.sampler!r} does not use it; "
                    f"set sampler={sampler!r} or leave {name} out"
                )
        elif getattr(self, name) is None:
            if default is None:
                raise ToEditError(f"sampler={sampler!r} needs {name}: a number above 0 and at most 1")
            self._set(name, default)

    def _check_pairs(self) -> None:
        if self.overlap >= self.window:
            raise ToEditError(
                f"overlap is {self.overlap} and window is {self.window}; overlap must be smaller than window"
            )
        if self.condition == "le" and self.threshold > 1:
            _refuse(
                "threshold", self.threshold, "at most 1 with condition='le', which it would make true always"
            )
        if self.exclude_original and self.top_k < 2:
            raise ToEditError(
                "exclude_original needs top_k of at least 2: with top_k=1 there is no other token to draw"
            )


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "official": {},
    "paper": {"temperature": 1.0},
    "low_drop": {"temperature": 1.0, "low": "drop"},
    "filter": {"threshold": OFF, "low": "drop"},
}


def _toml(value: Any) -> str:
    """Scalars, and lists of them, are in TOML as in JSON, but for a character that only JSON leaves bare."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _refuse(name: str, value: Any, wanted: str) -> None:
    raise ToEditError(f"{name} is {value!r}; it must be {wanted}")


def _check_names(values: Iterable[Any]) -> None:
    known = [field.name for field in fields(EditConfig)]
    for name in values:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}? There are" if near else "there are"
            raise ToEditError(f"{name!r} is not a setting of EditConfig; {hint}: {', '.join(known)}")


def _protected(entries: Any) -> tuple[str | int, ...]:
    """`protect` as a flat tuple; sets and lists of token ids in it are spelled out, sorted."""
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        entries = (entries,)
    flat: list[str | int] = []
    for entry in entries:
        if isinstance(entry, set | frozenset | list | tuple):
            flat += sorted(_token_id(item) for item in entry)
        elif isinstance(entry, str):
            flat.append(_expression(entry))
        else:
            flat.append(_token_id(entry))
    return tuple(flat)


def _token_id(entry: Any) -> int:
    if not isinstance(entry, int) or isinstance(entry, bool) or entry < 0:
        _refuse("protect", entry, "a regular expression, or a token id (a whole number, at least 0)")
    return int(entry)


def _expression(entry: str) -> str:
    try:
        re.compile(entry)
    except re.error as error:
        raise ToEditError(f"protect has {entry!r}, which is not a regular expression: {error}") from error
    return entry
