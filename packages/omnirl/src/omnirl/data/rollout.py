"""Many sequences side by side: behaviours act, every learner learns, an oracle labels (section 2.3).

All sequences take real steps at once; where an episode ends, its filler step is written besides, so a
sequence with more episodes is full sooner. A sequence draws from its own stream only, and never sees its
neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from omnirl.data.mixtures import ACTORS, Behaviour, Draws, Method, Mix, Scale, Settings
from omnirl.data.policies import (
    BonusQLearning,
    Floats,
    Ints,
    ModelBased,
    Policy,
    QLearning,
    RandomRows,
    Transition,
    WorldModel,
)
from omnirl.data.sequences import COLUMNS, IGNORED, STORED, TAGS, UNKNOWN
from omnirl.data.worlds import Worlds
from omnirl.tasks.stepping import start, step

SWITCHING = 0.85
"""The probability that a sequence may change its behaviour at the end of an episode."""
SWITCH = 0.20
"""How often it then does."""

# Columns of a step's uniform numbers; the learners' bonuses take further ones.
_NEXT, _NOISE, _SHARE, _PICK, _START, _SWITCH, _WHICH, _MASK, _BONUS = range(9)
_STEPS_AT_ONCE = 64
_REFERENCE = 3


class Cast:
    """The behaviour policies of B sequences, each with its own settings, and which of them is on."""

    def __init__(self, mix: Mix, draws: Draws, scale: Scale) -> None:
        names = list(dict.fromkeys(b.actor for b in mix if b.actor is not None))
        settings = {name: ACTORS[name](draws, scale) for name in names}
        self._num_actions = scale.actions
        self._actors, self._learners = _actors(settings, scale)
        self._ramps = np.stack([_ramps(b, draws, scale, settings.get(b.actor or "", {})) for b in mix])
        self._actor = np.array([-1 if b.actor is None else names.index(b.actor) for b in mix])
        self._teacher = np.array([-1 if b.teacher is None else b.teacher for b in mix])
        self._chances = np.cumsum([b.probability for b in mix]) / sum(b.probability for b in mix)
        count = self._ramps.shape[-1]
        self.on = np.zeros(count, np.int64)
        """(B,) the number of the behaviour in the mix."""
        self._ramp = np.empty((4, 2, count))
        self.redraw(np.arange(count), draws.uniform())

    @property
    def uniforms(self) -> int:
        """The largest number of uniforms that an actor takes beyond the one of all."""
        return max((actor.uniforms for actor in self._actors if actor.uniforms > 1), default=0)

    def redraw(self, rows: Ints, u: Floats) -> None:
        """Put a behaviour on in the sequences `rows` (m,), from the uniforms `u` (m,)."""
        on = np.minimum(np.searchsorted(self._chances, u, side="right"), len(self._chances) - 1)
        self.on[rows] = on
        self._ramp[:, :, rows] = self._ramps[on, :, :, rows].transpose(2, 1, 0)
        self._actor_on, self._teacher_on = self._actor[self.on], self._teacher[self.on]

    def act(
        self, time: int, state: Ints, oracle: Callable[[Ints, Ints], Ints], u: Floats
    ) -> tuple[Ints, Ints]:
        """Actions and tags (B,) of step `time` in the observations `state` (B,).

        `oracle` gives the actions of these levels in these rows; `u` is (B, uniforms).
        """
        start, slope, low, high = self._ramp
        noise, share = np.minimum(np.maximum(start + slope * time, low), high)
        free = u[:, _NOISE] >= noise
        taught = free & ((u[:, _SHARE] < share) | (self._actor_on < 0))
        action = (u[:, _PICK] * self._num_actions).astype(np.int64)
        tag = np.full(len(state), TAGS["random"])
        rows = np.flatnonzero(taught)
        tag[rows] = level = self._teacher_on[rows]
        action[rows] = oracle(rows, level)
        waiting = np.where(free & ~taught, self._actor_on, -1)
        for number, actor in enumerate(self._actors):
            rows = np.flatnonzero(waiting == number)
            if len(rows):
                first = _PICK if actor.uniforms == 1 else _BONUS
                action[rows] = actor.act(rows, state[rows], u[rows, first : first + actor.uniforms])
                tag[rows] = actor.tag
        return action, tag

    def update(self, transition: Transition) -> None:
        """Let every learner see the transition."""
        for learner in self._learners:
            learner.update(transition)


def _ramps(behaviour: Behaviour, draws: Draws, scale: Scale, settings: Settings) -> Floats:
    """(2, 4, B): the ramps of the noise and of the teacher's share."""
    ramps = behaviour.noise(draws, scale, settings), behaviour.share(draws, scale, settings)
    shape = draws.uniform().shape
    return np.stack([np.stack([np.broadcast_to(part, shape) for part in ramp]) for ramp in ramps])


def _actors(settings: dict[str, Settings], scale: Scale) -> tuple[list[Policy], list[Policy | WorldModel]]:
    """The actors in the order of their names, and all that learns: one world model for its planners."""
    size = (scale.states, scale.actions)
    planners = [name for name in settings if name in ("mbrl", "mbrl-plain")]
    actors: list[Policy] = []
    learners: list[Policy | WorldModel] = []
    if planners:
        model = WorldModel(*size, np.stack([settings[name]["gamma"] for name in planners], -1))
        learners.append(model)
    for name, drawn in settings.items():
        given = {key: value for key, value in drawn.items() if key != "steady"}
        if name in planners:
            actors.append(ModelBased(model, planners.index(name), given["bonus"]))
        else:
            actors.append(_OWN_TABLES[name](*size, **given))
            learners.append(actors[-1])
    return actors, learners


_OWN_TABLES: dict[str, Callable[..., Policy]] = {
    "random": lambda _states, _actions, **given: RandomRows(**given),
    "qlearn": QLearning,
    "qlearn-bonus": BonusQLearning,
}


def roll_out(
    worlds: Worlds,
    task: Ints,
    streams: Sequence[Generator],
    steps: int,
    method: Method,
    *,
    tag_mask: tuple[float, float] = (0.15, 0.15),
    time_scale: float = 1.0,
) -> dict[str, NDArray[Any]]:
    """Columns (B, T) as in `Dataset.parts` of B sequences that play `task` (B,), each with its own stream.

    `tag_mask` are the probabilities that the tags of a whole sequence, and of an episode, are hidden (7).
    """
    count, num_actions = len(task), worlds.num_actions
    draws = Draws(streams)
    cast = Cast(method.mix, draws, Scale(worlds.num_observations, num_actions, steps, time_scale))
    may_switch = draws.coin(SWITCHING)
    hidden_all, hidden = draws.coin(tag_mask[0]), draws.coin(tag_mask[1])
    written = _Written(count, steps, num_actions)
    inner = start(worlds.tables, draws.uniform(), task=task)
    state, elapsed = worlds.observe(task, inner), np.zeros(count, np.int64)
    limit = worlds.max_steps[task]
    oracle, first_place = worlds.act, task * worlds.oracle[0].size
    random = _blocks(streams, _BONUS + cast.uniforms)
    for time in range(steps):
        u, z = next(random)
        place = first_place + state
        action, tag = cast.act(time, state, lambda rows, level: oracle(place[rows], level), u)  # noqa: B023
        inner, reward, terminated = step(worlds.tables, inner, action, u[:, _NEXT], z, task=task)
        elapsed += 1
        ended = terminated | (elapsed >= limit)
        arrived = worlds.observe(task, inner)
        told = np.where(hidden_all | hidden, UNKNOWN, tag)
        label = action if method.label == "acted" else oracle(place, _REFERENCE)
        written.steps(state, told, action, reward, label)
        size = (worlds.num_observations, num_actions)
        cast.update(Transition(state, action, reward, arrived, terminated, ended, *size))
        rows = np.flatnonzero(ended)
        if len(rows):
            written.fillers(rows, arrived[rows])
            if written.full:
                break
            v = u[rows]
            inner[rows] = start(worlds.tables, v[:, _START], task=task[rows])
            arrived[rows] = worlds.observe(task[rows], inner[rows])
            elapsed[rows] = 0
            hidden[rows] = v[:, _MASK] < tag_mask[1]
            switch = may_switch[rows] & (v[:, _SWITCH] < SWITCH)
            cast.redraw(rows[switch], v[switch, _WHICH])
        state = arrived
    return written.columns()


class _Written:
    """Columns that fill from the left, every row at its own pace; what is beyond T is thrown away."""

    def __init__(self, count: int, steps: int, num_actions: int) -> None:
        self._steps, self._num_actions = steps, num_actions
        shape = (count, steps + 1)
        self._columns = {name: np.empty(shape, STORED[name]) for name in COLUMNS}
        self._first = np.arange(count) * (steps + 1)
        self._column = np.zeros(count, np.int64)

    @property
    def full(self) -> bool:
        return bool(self._column.min() >= self._steps)

    def steps(self, *values: NDArray[Any]) -> None:
        self._write(self._first + self._column, values)
        self._column = np.minimum(self._column + 1, self._steps)

    def fillers(self, rows: Ints, observation: Ints) -> None:
        self._write(
            self._first[rows] + self._column[rows], (observation, UNKNOWN, self._num_actions, 0.0, IGNORED)
        )
        self._column[rows] = np.minimum(self._column[rows] + 1, self._steps)

    def columns(self) -> dict[str, NDArray[Any]]:
        return {name: column[:, :-1] for name, column in self._columns.items()}

    def _write(self, places: Ints, values: Sequence[Any]) -> None:
        for column, value in zip(self._columns.values(), values, strict=True):
            column.reshape(-1)[places] = value


def _blocks(streams: Sequence[Generator], rows: int) -> Iterator[tuple[Floats, Floats]]:
    """Uniforms (B, rows) and standard normal numbers (B,) of one step after the other, without end."""
    uniform = np.empty((len(streams), _STEPS_AT_ONCE, rows), np.float32)
    normal = np.empty((len(streams), _STEPS_AT_ONCE), np.float32)
    while True:
        for stream, own_uniform, own_normal in zip(streams, uniform, normal, strict=True):
            stream.random(out=own_uniform, dtype=np.float32)
            stream.standard_normal(out=own_normal, dtype=np.float32)
        for time in range(_STEPS_AT_ONCE):
            yield uniform[:, time], normal[:, time]
