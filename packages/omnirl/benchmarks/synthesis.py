"""DPD synthesis beside the official one, in one process and in turn.

    python benchmarks/synthesis.py [--sizes 16 32] [--steps 4000] [--repeats 5]

The peer is the loop of airsoul's data/anymdp/gen_anymdp_record.py (Apache-2.0, commit d8b43a0) on the solvers
and environment of xenoverse 0.1.14.0, written out below with its settings: twelve behaviours, all of which
learn from every step, four oracles and a check of twenty episodes for every task, and its two diagnostics of
every step. Ours is `omnirl.synthesize` with the same mix, mbrl included, from the solving and checking of its
tasks to the arrays. Both get tasks of our sampler, whose time is not counted, and sequences of `--steps`; a
turn of ours makes 2,048 of them (fewer for large tasks), one of the peer's makes one. Steps a second of the
processor, so that other work on the machine is not counted; of the wall in brackets. The goal of the ratio is
50.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _peer import load_peer

import omnirl
from omnirl.data.mixtures import MIXES

OUR_SEQUENCES = {16: 2048, 32: 2048, 64: 512, 128: 128}
GAMMAS = (0.0, 0.5, 0.93, 0.994)
RANDOM, MBRL, QLEARN, UNKNOWN = 6, 4, 5, 7

Rate = tuple[float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32], choices=list(OUR_SEQUENCES))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    peer = load_peer("synthesis.py")
    print(
        f"\nDPD synthesis, sequences of {arguments.steps} steps, steps a second ({arguments.repeats} turns)"
    )
    print("| states | ours | official | ratio |\n|---|---|---|---|")
    for size in arguments.sizes:
        print(row(size, arguments.steps, arguments.repeats, peer), flush=True)


def row(size: int, steps: int, repeats: int, peer: Any) -> str:
    count = OUR_SEQUENCES[size]
    tasks = omnirl.sample_tasks(count, size, seed=size)
    official = official_loop(peer) if peer else None
    ours, theirs = [], []
    if official:
        official(tasks[0], 100)  # compilation
    for turn in range(repeats):
        ours.append(rate(lambda seed=turn: omnirl.synthesize(tasks, steps, seed=seed), count * steps))
        if official:
            theirs.append(rate(lambda task=tasks[turn]: official(task, steps), steps))
    cells = [cell(ours), cell(theirs) if theirs else "-", ratio(ours, theirs) if theirs else "-"]
    return f"| {size} | {' | '.join(cells)} |"


def rate(call: Callable[[], Any], steps: int) -> Rate:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return steps / (time.process_time() - processor), steps / (time.perf_counter() - wall)


def cell(rates: list[Rate]) -> str:
    processor, wall = (statistics.median(values) for values in zip(*rates, strict=True))
    return f"{processor:,.0f} [{wall:,.0f}]"


def ratio(ours: list[Rate], theirs: list[Rate]) -> str:
    ratios = [a[0] / b[0] for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})"


def official_loop(peer: Any) -> Callable[[omnirl.Task, int], dict[str, np.ndarray]]:
    """The function that makes one sequence as airsoul does; see the module."""
    rng = np.random

    class Oracle(peer.AnyMDPSolverOpt):  # type: ignore[misc, name-defined]
        def __init__(self, level: int, env: Any) -> None:
            self.tag = level
            super().__init__(env, gamma=GAMMAS[level])

        def policy(self, state: int) -> tuple[int, int]:
            return super().policy(state), self.tag

    class RandomPolicy:
        def __init__(self, env: Any) -> None:
            logits = rng.normal(size=(env.ns, env.na), scale=rng.exponential(2.0))
            self.rows = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            noise = rng.normal(scale=rng.exponential(1e-5), size=(env.na, env.na))
            drift = np.clip(np.eye(env.na) + noise, 0, 1)
            self.drift = drift / drift.sum(1, keepdims=True)

        def learner(self, *_: Any) -> None:
            self.rows = np.matmul(self.rows, self.drift)

        def policy(self, state: int) -> tuple[int, int]:
            return rng.choice(len(self.drift), size=1, p=self.rows[state])[0], RANDOM

    class NoisyOracle:
        def __init__(self, env: Any, oracle: Any) -> None:
            self.na, self.oracle, self.noise = env.na, oracle, 1.0
            self.decay = rng.uniform(0.0, 1.0 / (env.ns * env.na))

        def learner(self, *_: Any) -> None:
            self.noise -= self.decay

        def policy(self, state: int) -> tuple[int, int]:
            return (
                (rng.randint(0, self.na), RANDOM) if rng.random() < self.noise else self.oracle.policy(state)
            )

    class NoisyMBRL(peer.AnyMDPSolverMBRL):  # type: ignore[misc, name-defined]
        def __init__(self, env: Any) -> None:
            steady = rng.random() < 0.5
            gamma, c = (rng.uniform(0.90, 0.99), 0.005) if steady else (0.99, 0.005 * rng.exponential(1.0))
            super().__init__(env, gamma=gamma, c=c)
            self.noise = 0.0 if steady else rng.uniform(0.1, 0.5)
            self.decay = rng.uniform(0.0, 0.10 / (env.ns * env.na))

        def learner(self, *transition: Any) -> None:
            super().learner(*transition)
            self.noise -= self.decay

        def policy(self, state: int) -> tuple[int, int]:
            return (
                (rng.randint(0, self.na), RANDOM)
                if rng.random() < self.noise
                else (super().policy(state), MBRL)
            )

    class NoisyQ(peer.AnyMDPSolverQ):  # type: ignore[misc, name-defined]
        def __init__(self, env: Any, steps: int) -> None:
            steady = rng.random() < 0.5
            gamma, alpha = (rng.uniform(0.90, 0.99), 0.01) if steady else (0.99, 0.01 * rng.exponential(1.0))
            super().__init__(
                env, gamma=gamma, alpha=alpha, max_steps=steps if steady else rng.uniform(100, steps)
            )
            self.noise = 0.0 if steady else rng.uniform(0.1, 0.5)
            self.decay = rng.uniform(0.0, 0.10 / (env.ns * env.na))

        def learner(self, *transition: Any) -> None:
            super().learner(*transition)
            self.noise -= self.decay

        def policy(self, state: int) -> tuple[int, int]:
            return (
                (rng.randint(0, self.na), RANDOM)
                if rng.random() < self.noise
                else (super().policy(state), QLEARN)
            )

    class Mixed(peer.AnyMDPSolverMBRL):  # type: ignore[misc, name-defined]
        def __init__(self, env: Any, oracle: Any) -> None:
            super().__init__(env, gamma=0.99, c=0.005)
            self.oracle, self.noise, self.share = oracle, rng.uniform(0.0, 1.0), rng.uniform(-2.0, -0.5)
            self.decay, self.rise = rng.uniform(0.0, 0.10 / (env.ns * env.na), 2)
            self.floor, self.cap = rng.uniform(-0.5, 0.5), rng.uniform(0.0, 0.20)

        def learner(self, *transition: Any) -> None:
            super().learner(*transition)
            self.noise = max(self.floor, self.noise - self.decay)
            self.share = min(self.cap, self.share + self.rise)

        def policy(self, state: int) -> tuple[int, int]:
            if rng.random() < self.noise:
                return rng.randint(0, self.na), RANDOM
            if rng.random() < self.share:
                return self.oracle.policy(state)
            return super().policy(state), MBRL

    def check(env: Any, *policies: Any) -> None:
        """Ten episodes of each policy; airsoul compares their returns and rejects the task by them."""
        for policy in policies:
            for _ in range(10):
                state, _ = env.reset()
                done = False
                while not done:
                    state, _, terminated, truncated, _ = env.step(policy.policy(state)[0])
                    done = terminated or truncated

    def make(task: omnirl.Task, steps: int) -> dict[str, np.ndarray]:
        env = peer.AnyMDPEnv(max_steps=task.max_steps)
        env.set_task(task.to_xenoverse())
        env.reset()
        oracles = [Oracle(level, env) for level in range(4)]
        behaviours = [RandomPolicy(env), NoisyMBRL(env), NoisyQ(env, steps)]
        behaviours += [Mixed(env, oracle) for oracle in oracles]
        behaviours += [NoisyOracle(env, oracles[2]), NoisyOracle(env, oracles[3]), *oracles[1:]]
        check(env, oracles[3], behaviours[0])
        chances = np.cumsum([behaviour.probability for behaviour in MIXES["paper"]])

        def draw() -> Any:
            return behaviours[np.searchsorted(chances / chances[-1], rng.random())]

        acting, may_switch = draw(), rng.random() < 0.85
        hide_all, hide = rng.random() < 0.15, rng.random() < 0.15
        columns: dict[str, list[Any]] = {name: [] for name in ("s", "g", "a", "r", "label", "prompt")}
        surprise: list[float] = []
        error: list[float] = []
        state, _ = env.reset()
        while len(columns["s"]) < steps:
            action, tag = acting.policy(state)
            label, prompt = oracles[3].policy(state)
            after, reward, terminated, truncated, info = env.step(action)
            surprise.append(-np.log(info["transition_gt"][after] + 1e-300))
            error.append((reward - info["reward_gt"]) ** 2)
            for behaviour in behaviours:
                behaviour.learner(state, action, after, reward, terminated, truncated)
            shown = UNKNOWN if hide_all or hide else tag
            for column, value in zip(
                columns.values(), (state, shown, action, reward, label, prompt), strict=True
            ):
                column.append(value)
            if terminated or truncated:
                filler = (after, UNKNOWN, env.na, 0.0, env.na, UNKNOWN)
                for column, value in zip(columns.values(), filler, strict=True):
                    column.append(value)
                after, _ = env.reset()
                acting = draw() if may_switch and rng.random() < 0.20 else acting
                hide = rng.random() < 0.15
            state = after
        return {name: np.array(column) for name, column in columns.items()}

    return make


if __name__ == "__main__":
    main()
