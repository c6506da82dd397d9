"""Which policies act in the data, how often, and how they are set (sections 2.3, 6.2); the methods by name.

Every behaviour is one scheme. With probability noise(t) a uniformly random action (tag 6); else, with
probability share(t), the action of an oracle, the `teacher` opt0..opt3 (its tag); else that of the `actor`, a
learner or a random policy. t counts the steps of the whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from omnirl.data.policies import Bools, Floats
from omnirl.errors import OmniRLError

_COLUMNS_AT_ONCE = 64


class Draws:
    """Random settings of B sequences, each from its own stream, in the order of the calls; all (B,)."""

    def __init__(self, streams: Sequence[Generator]) -> None:
        self._streams = streams
        self._pool = np.empty((_COLUMNS_AT_ONCE, len(streams)))
        self._used = _COLUMNS_AT_ONCE

    def uniform(self, low: Floats | float = 0.0, high: Floats | float = 1.0) -> Floats:
        """Uniform on [low, high)."""
        if self._used == len(self._pool):
            self._pool = np.stack([stream.random(_COLUMNS_AT_ONCE) for stream in self._streams], axis=1)
            self._used = 0
        self._used += 1
        return low + (high - low) * self._pool[self._used - 1]

    def exponential(self, mean: float) -> Floats:
        """Exponential of this mean."""
        return -mean * np.log1p(-self.uniform())

    def coin(self, probability: float) -> Bools:
        """True with this probability."""
        return self.uniform() < probability

    def normal(self, *shape: int) -> Floats:
        """(B, *shape) standard normal numbers."""
        return np.stack([stream.standard_normal(shape) for stream in self._streams])


class Scale(NamedTuple):
    """What the schedules count in."""

    states: int
    actions: int
    steps: int
    """T, the length of a sequence."""
    time: float = 1.0
    """`noise_time_scale`: the schedules run 1/time times as fast."""

    @property
    def pairs(self) -> float:
        """N_sa = n A, on the scale of time."""
        return self.states * self.actions * self.time


class Ramp(NamedTuple):
    """clip(start + slope · t, low, high), each a number or (B,)."""

    start: Floats | float
    slope: Floats | float = 0.0
    low: Floats | float = 0.0
    high: Floats | float = 1.0


Settings = Mapping[str, Any]
RampOf = Callable[[Draws, Scale, Settings], Ramp]


def never(_draws: Draws, _scale: Scale, _settings: Settings) -> Ramp:
    """Probability 0."""
    return Ramp(0.0)


def noise_of_learner(draws: Draws, scale: Scale, settings: Settings) -> Ramp:
    """None for a steady learner; else from U(.1,.5), falling by U(0, .1/N_sa) a step."""
    start = np.where(settings.get("steady", False), 0.0, draws.uniform(0.1, 0.5))
    return Ramp(start, -draws.uniform(0, 0.1 / scale.pairs))


def noise_of_mixture(draws: Draws, scale: Scale, _settings: Settings) -> Ramp:
    """From U(0,1), falling by U(0, .1/N_sa) a step to U(-.5,.5)."""
    start, slope = draws.uniform(0, 1), -draws.uniform(0, 0.1 / scale.pairs)
    return Ramp(start, slope, low=np.maximum(draws.uniform(-0.5, 0.5), 0))


def rising_share(draws: Draws, scale: Scale, _settings: Settings) -> Ramp:
    """From U(-2,-.5), rising by U(0, .1/N_sa) a step to U(0,.2)."""
    return Ramp(draws.uniform(-2, -0.5), draws.uniform(0, 0.1 / scale.pairs), high=draws.uniform(0, 0.2))


def noise_from_one(draws: Draws, scale: Scale, _settings: Settings) -> Ramp:
    """From 1, falling by U(0, 1/N_sa) a step."""
    return Ramp(1.0, -draws.uniform(0, 1 / scale.pairs))


def noise_of_short_sequences(draws: Draws, scale: Scale, _settings: Settings) -> Ramp:
    """From U(.3,1), falling by U(0, 2.5/T) a step to U(-.2,.3) (section 6.2)."""
    start, slope = draws.uniform(0.3, 1), -draws.uniform(0, 2.5 / (scale.steps * scale.time))
    return Ramp(start, slope, low=np.maximum(draws.uniform(-0.2, 0.3), 0))


def random_rows(draws: Draws, scale: Scale) -> Settings:
    """Rows softmax(κ N), κ ~ Exp(2), drifting by row-normalised clip(I + ε N, 0, 1), ε ~ Exp(1e-5)."""
    sharpness, pace = draws.exponential(2.0), draws.exponential(1e-5)
    drift = np.eye(scale.actions) + pace[:, None, None] * draws.normal(scale.actions, scale.actions)
    drift = drift.clip(0, 1)
    return {
        "logits": sharpness[:, None, None] * draws.normal(scale.states, scale.actions),
        "drift": drift / drift.sum(-1, keepdims=True),
    }


def model_based(draws: Draws, _scale: Scale) -> Settings:
    """Half of them steady: γ ~ U(.9,.99), c = .005; the others γ = .99, c = .005 Exp(1)."""
    steady = draws.coin(0.5)
    return {
        "steady": steady,
        "gamma": np.where(steady, draws.uniform(0.9, 0.99), 0.99),
        "bonus": 0.005 * np.where(steady, 1.0, draws.exponential(1.0)),
    }


def plain_model_based(draws: Draws, _scale: Scale) -> Settings:
    """γ = .99 and c = .005 in every sequence."""
    ones = np.ones_like(draws.uniform())
    return {"gamma": 0.99 * ones, "bonus": 0.005 * ones}


def q_learning(draws: Draws, scale: Scale) -> Settings:
    """Half of them steady: α = .01, γ ~ U(.9,.99), M = T; the others α = .01 Exp(1), γ = .99, M ~
    U(100,T).
    """
    steady = draws.coin(0.5)
    return {
        "steady": steady,
        "alpha": 0.01 * np.where(steady, 1.0, draws.exponential(1.0)),
        "gamma": np.where(steady, draws.uniform(0.9, 0.99), 0.99),
        "horizon": np.where(steady, float(scale.steps), draws.uniform(100.0, float(scale.steps))),
    }


def bonus_q_learning(draws: Draws, _scale: Scale) -> Settings:
    """α ~ U(.1,.5), γ ~ U(.9,.99), c ~ Exp(.3)."""
    return {
        "alpha": draws.uniform(0.1, 0.5),
        "gamma": draws.uniform(0.9, 0.99),
        "bonus": draws.exponential(0.3),
    }


ACTORS: Mapping[str, Callable[[Draws, Scale], Settings]] = {
    "random": random_rows,
    "mbrl": model_based,
    "mbrl-plain": plain_model_based,
    "qlearn": q_learning,
    "qlearn-bonus": bonus_q_learning,
}
"""Who may act, and how a sequence's own copy is set; behaviours that name the same actor share the copy."""


@dataclass(frozen=True)
class Behaviour:
    """One entry of a mix; see the module. Without an actor the teacher does all that is not noise."""

    name: str
    probability: float
    actor: str | None = None
    teacher: int | None = None
    noise: RampOf = never
    share: RampOf = never

    def __post_init__(self) -> None:
        if self.actor is not None and self.actor not in ACTORS:
            raise OmniRLError(f"behaviour {self.name!r}: no actor {self.actor!r}; there are {sorted(ACTORS)}")
        if self.teacher not in (None, 0, 1, 2, 3):
            raise OmniRLError(
                f"behaviour {self.name!r}: teacher is {self.teacher}; allowed: 0..3 (opt0..opt3), None"
            )
        if self.actor is None and self.teacher is None:
            raise OmniRLError(f"behaviour {self.name!r} needs an actor or a teacher")
        if not self.probability > 0:
            raise OmniRLError(f"behaviour {self.name!r}: probability {self.probability} must be positive")


Mix = tuple[Behaviour, ...]

_LEARNERS = (
    Behaviour("mbrl", 0.10, actor="mbrl", noise=noise_of_learner),
    Behaviour("qlearn", 0.10, actor="qlearn", noise=noise_of_learner),
)

MIXES: Mapping[str, Mix] = {
    "paper": (
        Behaviour("random", 0.10, actor="random"),
        *_LEARNERS,
        *(Behaviour(f"mbrl+opt{k}", 0.10, "mbrl-plain", k, noise_of_mixture, rising_share) for k in range(4)),
        *(Behaviour(f"opt{k}+noise", 0.10, teacher=k, noise=noise_from_one) for k in (2, 3)),
        *(Behaviour(f"opt{k}", p, teacher=k) for k, p in ((1, 0.02), (2, 0.03), (3, 0.05))),
    ),
    "explore": (
        Behaviour("random", 0.25, actor="random"),
        Behaviour("qlearn-bonus", 0.25, actor="qlearn-bonus"),
        Behaviour("mbrl", 0.10, actor="mbrl", noise=noise_of_learner),
        *(
            Behaviour(f"opt{k}+noise", p, teacher=k, noise=noise_of_short_sequences)
            for k, p in ((0, 0.03), (1, 0.03), (2, 0.14), (3, 0.25))
        ),
        *(Behaviour(f"opt{k}", p, teacher=k) for k, p in ((1, 0.01), (2, 0.01), (3, 0.03))),
    ),
}
"""`paper`: the official mix (2.3). `explore`: more exploration, for short sequences (6.2, with mbrl
added).
"""


class Method(NamedTuple):
    """A way to make data: who acts, and what the label is."""

    mix: Mix
    label: str
    """`opt3`: the oracle's action. `acted`: the action itself."""

    @property
    def levels(self) -> set[int]:
        """The oracles that are needed."""
        teachers = {b.teacher for b in self.mix if b.teacher is not None}
        return teachers | ({3} if self.label == "opt3" else set())


METHODS: Mapping[str, Method] = {
    "dpd": Method(MIXES["paper"], "opt3"),
    "dpt": Method(
        (
            Behaviour("opt3", 1.0, teacher=3),
            Behaviour("qlearn", 1.0, actor="qlearn", noise=noise_of_learner),
            Behaviour("random", 1.0, actor="random"),
        ),
        "opt3",
    ),
    "ad": Method((Behaviour("qlearn", 1.0, actor="qlearn", noise=noise_of_learner),), "acted"),
    "ad_eps": Method((Behaviour("opt3+noise", 1.0, teacher=3, noise=noise_from_one),), "acted"),
}


def method_named(method: str, mix: str | Sequence[Behaviour] | None = None) -> Method:
    """The method of this name, of `dpd` with another mix.

    Raises:
        OmniRLError: for a name that there is not, and for a mix with a method that has its own.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise OmniRLError(f"no method {method!r}; there are {', '.join(METHODS)}")
    if mix is None:
        return METHODS[method]
    if method != "dpd":
        raise OmniRLError(f"method {method!r} has its own mix of behaviours; mix goes with 'dpd'")
    if isinstance(mix, str):
        if mix not in MIXES:
            raise OmniRLError(f"no mix {mix!r}; there are {', '.join(MIXES)}")
        return Method(MIXES[mix], "opt3")
    given: Any = mix  # a config may hold anything
    if not (isinstance(given, Sequence) and given and all(isinstance(one, Behaviour) for one in given)):
        raise OmniRLError("mix must be a name or a list of Behaviour with one at least")
    return Method(tuple(given), "opt3")
