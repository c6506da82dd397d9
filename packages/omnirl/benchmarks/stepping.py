"""Steps a second through `AnyMDPVectorEnv.step`, beside xenoverse's `AnyMDPEnv.step` on the same tasks.

    python benchmarks/stepping.py [--sizes 16 64 128] [--repeats 7] [--ppo]

Both run in one process and in turn. Times are the processor's, so that other work on the machine is not
counted; the wall's are shown too. Actions are drawn beforehand; ours resets within the steps (NEXT_STEP, and
the steps that reset are not counted), xenoverse is reset when an episode ends. A ratio is the median over
pairs with the smallest and the largest. Goal: at least 200 at every size. `AnyMDPEnv`, one world at a time,
is shown as well; it and xenoverse play the first eight tasks in turn.

`--ppo`: the steps a second of Stable-Baselines3's PPO from end to end, with updates of 2,048 steps, on a
`DummyVecEnv` of 16 single environments and on `SB3VecEnv` of 16 and of 256.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
from _peer import load_peer

import omnirl
from omnirl.envs import AnyMDPEnv, AnyMDPVectorEnv

ENVIRONMENTS = 4096
# Size: distinct tasks among them; large ones take long to sample.
TASKS = {16: 1024, 32: 512, 64: 256, 128: 128}
OUR_CALLS, SINGLE_STEPS, PEER_STEPS = 100, 20000, 4000
PLAYED = 8

Run = Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 128], choices=TASKS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--ppo", action="store_true")
    options = parser.parse_args()
    if options.ppo:
        ppo(options.repeats)
    else:
        stepping(options.sizes, options.repeats)


def stepping(sizes: list[int], repeats: int) -> None:
    """Print a row a size."""
    found = load_peer("stepping.py")
    Peer = found.AnyMDPEnv if found else None
    print(
        f"numpy {np.__version__}, {ENVIRONMENTS} environments; steps per processor second (per wall second)\n"
    )
    columns = ("states", "tasks", "vector", "one world", "xenoverse", "vector / peer", "one world / peer")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    for size in sizes:
        tasks = omnirl.sample_tasks(TASKS[size], size, seed=0)
        runs = {"vector": vector(tasks), "single": single(tasks)}
        if Peer is not None:
            runs["peer"] = peer(Peer, tasks)
        rates = measure(runs, repeats)
        cells = [shown(rates[name]) for name in runs] + ([] if Peer else ["-"])
        for name in ("vector", "single"):
            pairs = zip(rates[name], rates["peer"], strict=True) if Peer else ()
            cells.append(ratio([ours[0] / theirs[0] for ours, theirs in pairs]))
        print(f"| {size} | {TASKS[size]} | {' | '.join(cells)} |", flush=True)


def measure(runs: dict[str, Run], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Rates (steps a processor second, a wall second) of every repeat; the runs take turns."""
    for run in runs.values():
        run()
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            steps = run()
            spent = time.process_time() - processor, time.perf_counter() - wall
            rates[name].append((steps / spent[0], steps / spent[1]))
    return rates


def vector(tasks: omnirl.TaskBatch) -> Run:
    env = AnyMDPVectorEnv(tasks, ENVIRONMENTS, seed=0)
    env.reset()
    actions = cycle(np.random.default_rng(1).integers(0, tasks.num_actions, (64, ENVIRONMENTS)))

    def run() -> int:
        ended = 0
        for _ in range(OUR_CALLS):
            _, _, terminated, truncated, _ = env.step(next(actions))
            ended += int(terminated.sum() + truncated.sum())
        return OUR_CALLS * ENVIRONMENTS - ended  # every end costs one step that resets

    return run


def single(tasks: omnirl.TaskBatch) -> Run:
    return one_at_a_time([AnyMDPEnv(tasks[i]) for i in range(PLAYED)], tasks.num_actions, SINGLE_STEPS)


def peer(cls: Any, tasks: omnirl.TaskBatch) -> Run:
    environments = []
    for i in range(PLAYED):
        environments.append(cls(max_steps=int(tasks.max_steps[i])))
        environments[-1].set_task(tasks[i].to_xenoverse())
    return one_at_a_time(environments, tasks.num_actions, PEER_STEPS)


def one_at_a_time(environments: list[Any], num_actions: int, steps: int) -> Run:
    """`steps` steps in all, in one environment after the other."""
    actions = cycle(np.random.default_rng(1).integers(0, num_actions, 997).tolist())

    def run() -> int:
        for env in environments:
            env.reset()
            for _ in range(steps // len(environments)):
                _, _, terminated, truncated, _ = env.step(next(actions))
                if terminated or truncated:
                    env.reset()
        return steps

    return run


def ppo(repeats: int) -> None:
    """Print the steps a second of PPO on both kinds of environment."""
    from gymnasium.vector import AutoresetMode
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    from omnirl.envs import SB3VecEnv

    tasks = omnirl.sample_tasks(16, 16, seed=0)
    kinds = {
        "DummyVecEnv of 16": DummyVecEnv([lambda i=i: AnyMDPEnv(tasks[i]) for i in range(16)]),
        "SB3VecEnv of 16": SB3VecEnv(AnyMDPVectorEnv(tasks, 16, AutoresetMode.SAME_STEP)),
        "SB3VecEnv of 256": SB3VecEnv(AnyMDPVectorEnv(tasks, 256, AutoresetMode.SAME_STEP)),
    }

    def trained(env: Any) -> Run:
        length = 2048 // env.num_envs
        model = PPO("MlpPolicy", env, n_steps=length, batch_size=512, n_epochs=4, seed=0, device="cpu")
        return lambda: model.learn(2048).num_timesteps

    rates = measure({name: trained(env) for name, env in kinds.items()}, repeats)
    print("| PPO on 16 tasks of 16 states | steps per processor second (per wall second) | ratio |")
    print("|---|---|---|")
    for name, found in rates.items():
        pairs = zip(found, rates["DummyVecEnv of 16"], strict=True)
        print(f"| {name} | {shown(found)} | {ratio([ours[0] / theirs[0] for ours, theirs in pairs])} |")


def shown(rates: list[tuple[float, float]]) -> str:
    processor, wall = (statistics.median(column) for column in zip(*rates, strict=True))
    return f"{processor:,.0f} ({wall:,.0f})"


def ratio(found: list[float]) -> str:
    return f"{statistics.median(found):.3g} [{min(found):.3g}, {max(found):.3g}]" if found else "-"


if __name__ == "__main__":
    main()
