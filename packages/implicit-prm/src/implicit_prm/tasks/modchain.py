"""ModChain: chains of affine operations modulo a number, with a teacher that errs on some transitions.

f_k(x) = (a_k x + b_k) mod m. A prompt is a start state and the operations ("s3 f17 f0 f4"), a response the
state after each of them ("s5 s21 s2"): every token is a step, and the truth of each is known. On the *hard*
transitions the teacher often takes one fixed wrong state for the right one, so that a model of it has biased
errors and a majority vote saturates.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.tasks.base import Grade, grade_steps
from implicit_prm.tasks.vocabulary import word_tokenizer

Integers = npt.NDArray[np.int64]

_STATE = re.compile(r"s(\d+)")


@dataclass(frozen=True)
class ModChain:
    """The task: modulus, number of operations, steps of a chain, share of hard transitions; a seed draws it.

    With `start_last` the start state ends the prompt ("f17 f0 f4 s3"): then the first step, as all others,
    finds its state right before it. Of long chains a small model else learns all steps but the first.
    On a hard transition the teacher is right with probability `hard_right`, takes the confounder with
    `hard_confounded`, and any state with the rest; on the others it is right with `easy_right`.
    Raises `ImplicitPRMError` for a task that cannot be.
    """

    mod: int = 23
    operations: int = 20
    steps: int = 6
    hard_share: float = 0.25
    seed: int = 0
    hard_right: float = 0.45
    hard_confounded: float = 0.40
    easy_right: float = 0.97
    start_last: bool = False

    splitter = "token"
    """How a response is split into steps."""

    def __post_init__(self) -> None:
        units = sum(math.gcd(a, self.mod) == 1 for a in range(1, self.mod)) if self.mod > 2 else 0
        if not units:
            raise ImplicitPRMError(f"mod is {self.mod}; it must be at least 3")
        if not 1 <= self.operations <= units * self.mod:
            raise ImplicitPRMError(
                f"operations is {self.operations}; modulo {self.mod} there are 1 to {units * self.mod}"
            )
        if self.steps < 1:
            raise ImplicitPRMError(f"steps is {self.steps}; it must be at least 1")
        shares = (self.hard_share, self.hard_right, self.hard_confounded, self.easy_right)
        if not all(0 <= share <= 1 for share in shares) or self.hard_right + self.hard_confounded > 1:
            raise ImplicitPRMError(
                f"hard_share, hard_right, hard_confounded, easy_right are {shares}; each must be in [0, 1], "
                "and hard_right + hard_confounded at most 1"
            )

    @cached_property
    def table(self) -> Integers:
        """int64 [operations, mod]: the state after each operation on each state. No two operations agree."""
        random = np.random.default_rng([self.seed, 0])
        units = [a for a in range(1, self.mod) if math.gcd(a, self.mod) == 1]
        drawn = random.choice(len(units) * self.mod, self.operations, replace=False)
        a, b = np.array(units)[drawn // self.mod], drawn % self.mod
        return (a[:, None] * np.arange(self.mod) + b[:, None]) % self.mod

    @cached_property
    def hard(self) -> npt.NDArray[np.bool_]:
        """bool [operations, mod]: the transitions on which the teacher is often wrong."""
        count = self.operations * self.mod
        chosen = np.random.default_rng([self.seed, 1]).permutation(count) < round(self.hard_share * count)
        return chosen.reshape(self.operations, self.mod)

    @cached_property
    def confounder(self) -> Integers:
        """int64 [operations, mod]: the wrong state that the teacher takes most often on a hard transition."""
        shift = np.random.default_rng([self.seed, 2]).integers(1, self.mod, self.table.shape)
        return (self.table + shift) % self.mod

    def prompts(self, count: int, seed: int) -> list[str]:
        """Uniform start states and operations."""
        return self._draw(count, [self.seed, 3, seed])

    def test_prompts(self, count: int, seed: int) -> list[str]:
        """The same from other random numbers: of some m k^steps prompts two are hardly ever the same."""
        return self._draw(count, [self.seed, 5, seed])

    def solve(self, prompt: str) -> str:
        """The right response."""
        state, chain = self._parse(prompt)
        states = []
        for k in chain:
            state = int(self.table[k, state])
            states.append(f"s{state}")
        return " ".join(states)

    def demonstrations(self, count: int, seed: int) -> list[tuple[str, str]]:
        """(prompt, response) of the noisy teacher, which goes on from its own errors."""
        prompts = self.prompts(count, seed)
        parsed = [self._parse(prompt) for prompt in prompts]
        states = np.array([state for state, _ in parsed])
        chains = np.array([chain for _, chain in parsed]).reshape(count, self.steps)
        random = np.random.default_rng([self.seed, 4, seed])
        columns = []
        for chain in chains.T:
            states = self._teach(chain, states, random)
            columns.append(states)
        responses = np.stack(columns, axis=1).tolist()
        return [
            (prompt, " ".join(f"s{state}" for state in response))
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    def grade(self, prompt: str, completion: str) -> Grade:
        """Judge each state against its own predecessor, and the last one against the right response."""
        start, chain = self._parse(prompt)
        words = completion.split()
        states = [start, *map(self._state, words)]
        right = [
            before is not None and after == self.table[k, before]
            for k, before, after in zip(chain, states, states[1:], strict=False)
        ]
        right += [False] * (len(words) - len(right))
        correct = len(words) == self.steps and states[-1] == self.answer(self.solve(prompt))
        return grade_steps(right, self.steps, correct)

    def answer(self, completion: str) -> int | None:
        """The last state, if the response ends in one."""
        return self._state(completion.split()[-1]) if completion.strip() else None

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A word a token: states, operations, `<pad>` and `<eos>`."""
        words = [f"s{state}" for state in range(self.mod)] + [f"f{k}" for k in range(self.operations)]
        return word_tokenizer(words, between=" ")

    def _draw(self, count: int, seeds: list[int]) -> list[str]:
        random = np.random.default_rng(seeds)
        starts = random.integers(self.mod, size=count)
        chains = random.integers(self.operations, size=(count, self.steps))
        return [
            self._prompt(f"s{start}", [f"f{k}" for k in chain])
            for start, chain in zip(starts.tolist(), chains.tolist(), strict=True)
        ]

    def _prompt(self, start: str, chain: list[str]) -> str:
        return " ".join([*chain, start] if self.start_last else [start, *chain])

    def _teach(self, chain: Integers, states: Integers, random: np.random.Generator) -> Integers:
        right, confounded = self.table[chain, states], self.confounder[chain, states]
        hard = self.hard[chain, states]
        luck = random.random(len(states))
        anything = random.integers(self.mod, size=len(states))
        wrong = np.where(hard & (luck < self.hard_right + self.hard_confounded), confounded, anything)
        return np.where(luck < np.where(hard, self.hard_right, self.easy_right), right, wrong)

    def _state(self, word: str) -> int | None:
        found = _STATE.fullmatch(word)
        return int(found[1]) if found and int(found[1]) < self.mod else None

    def _parse(self, prompt: str) -> tuple[int, list[int]]:
        words = prompt.split()
        place = len(words) - 1 if self.start_last else 0
        try:
            state = int(words.pop(place).removeprefix("s"))
            chain = [int(word.removeprefix("f")) for word in words]
        except (IndexError, ValueError):
            state, chain = -1, []
        in_range = 0 <= state < self.mod and all(0 <= k < self.operations for k in chain)
        if not in_range or len(chain) != self.steps:
            state_words = f"a state s0 to s{self.mod - 1}"
            chain_words = f"{self.steps} operations f0 to f{self.operations - 1}"
            first, second = (chain_words, state_words) if self.start_last else (state_words, chain_words)
            raise ImplicitPRMError(
                f"{prompt!r} is no prompt of this task: {first}, then {second}, with spaces between"
            )
        return state, chain
