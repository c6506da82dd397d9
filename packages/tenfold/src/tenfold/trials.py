"""One independent piece of a run: an arm with a seed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")


class TrialKey(NamedTuple):
    """What makes a trial the same trial: a finished one with this key is never run again."""

    arm: str
    seed: int
    stage: str
    settings_hash: str


@dataclass(frozen=True, eq=False)
class Trial:
    """An arm (what is compared) with a seed, in a stage of the experiment (a sweep, the final runs).

    `settings` is all that the trial function needs, as JSON; tuples become lists. Two trials are equal if
    arm, seed, stage and the canonical JSON of the settings are. Raises `TypeError` if they are no JSON.
    """

    arm: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    stage: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", json.loads(self._canonical()))

    @property
    def settings_hash(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the settings as canonical JSON."""
        return hashlib.sha256(self._canonical().encode()).hexdigest()[:12]

    @property
    def key(self) -> TrialKey:
        """What makes this trial the same trial in another run of the program."""
        return TrialKey(self.arm, self.seed, self.stage, self.settings_hash)

    @property
    def folder_name(self) -> str:
        """A file name for this trial, distinct from every other trial's."""
        words = "-".join(part for part in (self.stage, self.arm, f"seed{self.seed}") if part)
        digest = hashlib.sha256(json.dumps(self.key).encode()).hexdigest()[:12]
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', words)[:80]}-{digest}"

    def __str__(self) -> str:
        stage = f" in stage {self.stage!r}" if self.stage else ""
        return f"arm {self.arm!r} seed {self.seed}{stage}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trial) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def _canonical(self) -> str:
        try:
            return json.dumps(self.settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"the settings of arm {self.arm!r} must be plain JSON: {error}") from error


def by_arm(results: Mapping[Trial, Result], stage: str) -> dict[str, dict[int, Result]]:
    """Return the results of a stage by arm and seed, {arm: {seed: result}}, seeds in order."""
    arms: dict[str, dict[int, Result]] = {}
    for trial, result in results.items():
        if trial.stage == stage:
            arms.setdefault(trial.arm, {})[trial.seed] = result
    return {arm: dict(sorted(seeds.items())) for arm, seeds in arms.items()}
