"""From the results of the trials to the metrics that the claims name; a sample a seed, unless it is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, nan
from statistics import mean, median
from typing import Any

import numpy as np

Metrics = dict[str, list[float] | float]
Result = Mapping[str, Any]
Results = Mapping[str, Mapping[int, Result]]
"""Of every arm, by seed."""

MAIN, OUTCOMES, OFFLINE, UNFILTERED = "prime", "rloo", "prime-offline", "prime-unfiltered"
BASELINES = {"prime-grpo": "grpo", "prime-reinforce": "reinforce"}
"""Arms that are compared with other outcomes alone than RLOO's."""

LONGER, GSM8K = "longer", "gsm8k"
"""Other tasks, on which PRIME is compared with outcomes alone."""

LATE = (30, 50)
FIRST = (1, 10)
WINDOW = 10
PHASES = ("rollout", "verify", "prm", "policy")


def all_metrics(results: Results, repeated: Mapping[int, Result]) -> Metrics:
    """Everything that the claims name, as far as there are arms for it."""
    found = arm_metrics(results) | prm_metrics(results[MAIN].values()) | comparisons(results)
    found["step_time_ratio"] = [
        median(ours["steps"]["time/step"]) / median(theirs["steps"]["time/step"])
        for ours, theirs in pairs(results, MAIN, OUTCOMES)
    ]
    if OFFLINE in results:
        found["offline_accuracy_fall"] = [fall(result) for result in results[OFFLINE].values()]
    if UNFILTERED in results:
        for name, arm in (("reward_variance", MAIN), ("reward_variance_unfiltered", UNFILTERED)):
            found[name] = [step_variance(run["steps"]["reward/kept"]) for run in results[arm].values()]
    found["repeat_differences"] = [
        float(differences(results[MAIN][seed], result)) for seed, result in repeated.items()
    ]
    return found


def arm_metrics(results: Results) -> Metrics:
    """Accuracy before and after, steps, what was drawn, and seconds of a step by phase, of every arm.

    Steps are fewer where an arm collapsed.
    """
    found: Metrics = {"accuracy_before": [run["judged"]["accuracy"][0] for run in results[MAIN].values()]}
    gains = {arm: [gain(run) for run in seeds.values()] for arm, seeds in results.items()}
    found["smallest_gain"] = min(map(mean, gains.values()))
    for arm, seeds in results.items():
        found[f"gain_{arm}"] = gains[arm]
        found[f"steps_{arm}"] = [float(len(run["steps"]["time/step"])) for run in seeds.values()]
        found[f"rollouts_{arm}"] = [float(run["judged"]["rollouts"][-1]) for run in seeds.values()]
        for phase in (*PHASES, "step"):
            found[f"seconds_{phase}_{arm}"] = [
                median(run["steps"].get(f"time/{phase}", [0.0])) for run in seeds.values()
            ]
    return found


def prm_metrics(runs: Iterable[Result]) -> Metrics:
    """What C1 and C2 ask of the online PRM."""
    runs = list(runs)
    late = [over(run["steps"]["prm/accuracy"], *LATE) for run in runs]
    first = [over(run["steps"]["prm/accuracy"], *FIRST) for run in runs]
    areas = [(judged_over(run, "step_auc", *LATE), judged_over(run, "step_auc", *FIRST)) for run in runs]
    return {
        "prm_accuracy": late,
        "prm_accuracy_rise": [now - then for now, then in zip(late, first, strict=True)],
        "prm_step_auc": [now for now, _ in areas],
        "prm_step_auc_rise": [now - then for now, then in areas],
        "prm_accuracy_fall": [fall(run) for run in runs],
    }


def comparisons(results: Results) -> Metrics:
    """Every arm with a PRM against outcomes alone, seed by seed: by responses drawn, and by time."""
    found: Metrics = {}
    for arm in results:
        baseline = BASELINES.get(arm, OUTCOMES)
        if arm.startswith("prime") and baseline in results:
            two = pairs(results, arm, baseline)
            found[f"area_{arm}_minus_{baseline}"] = [area_gained(*pair, "rollouts") for pair in two]
            found[f"area_by_time_{arm}_minus_{baseline}"] = [area_gained(*pair, "seconds") for pair in two]
    found["rollouts_to_target_ratio"] = [
        target_ratio(ours, theirs) for ours, theirs in pairs(results, MAIN, OUTCOMES)
    ]
    return found


def metrics_on(results: Results, task: str) -> Metrics:
    """The same of PRIME and of outcomes alone on another task; every name ends in "_on_" and the task."""
    found: Metrics = {"accuracy_before": [run["judged"]["accuracy"][0] for run in results[MAIN].values()]}
    for arm, seeds in results.items():
        found[f"gain_{arm}"] = [gain(run) for run in seeds.values()]
    found |= prm_metrics(results[MAIN].values()) | comparisons(results)
    return {f"{name}_on_{task}": value for name, value in found.items()}


def pairs(results: Results, arm: str, other: str) -> list[tuple[Result, Result]]:
    """The runs of two arms with the same seed."""
    return [(results[arm][seed], results[other][seed]) for seed in results[arm] if seed in results[other]]


def gain(run: Result) -> float:
    """Points of accuracy from the fitted policy to the last step."""
    accuracy = run["judged"]["accuracy"]
    return float(accuracy[-1] - accuracy[0])


def over(values: Sequence[float | None], first: int, last: int) -> float:
    """The mean over steps first to last, counted from 1, of what there is; NaN of nothing."""
    known = [value for value in values[first - 1 : last] if value is not None]
    return mean(known) if known else nan


def judged_over(run: Result, name: str, first: int, last: int) -> float:
    """The mean over the times of judging after steps first to last; NaN of nothing."""
    found = zip(run["judged"]["step"], run["judged"][name], strict=True)
    known = [value for step, value in found if first <= step <= last and value is not None]
    return mean(known) if known else nan


def fall(run: Result) -> float:
    """How far the PRM's pair accuracy ends below its best, both of means over ten steps; NaN of nothing."""
    values = run["steps"]["prm/accuracy"]
    means = [over(values, start + 1, start + WINDOW) for start in range(0, len(values), WINDOW)]
    return float(np.max(means) - means[-1])


def step_variance(values: Sequence[float]) -> float:
    """Half the mean squared difference of neighbours: the variance about a slow trend; NaN of one value."""
    return float(np.square(np.diff(values)).mean() / 2) if len(values) > 1 else nan


def area_gained(ours: Result, theirs: Result, along: str) -> float:
    """Mean accuracy less that of the other run, along responses or seconds, as far as both went."""
    end = min(run["judged"][along][-1] for run in (ours, theirs))
    return mean_up_to(ours, along, end) - mean_up_to(theirs, along, end)


def mean_up_to(run: Result, along: str, end: float) -> float:
    """The mean of the accuracy, straight between the times of judging, from 0 to `end` > 0."""
    x, y = run["judged"][along], run["judged"]["accuracy"]
    points = [*(value for value in x if value < end), end]
    return float(np.trapezoid(np.interp(points, x, y), points) / end)


def target_ratio(ours: Result, theirs: Result) -> float:
    """Responses drawn until the other run's last accuracy is reached, over its own; infinite if never.

    NaN where the other run ends no better than it began, and so has no target.
    """
    target = theirs["judged"]["accuracy"][-1]
    needed = reached(theirs, target)
    return reached(ours, target) / needed if needed else nan


def reached(run: Result, target: float) -> float:
    """Responses drawn when the accuracy, straight between the times of judging, first is the target."""
    x, y = run["judged"]["rollouts"], run["judged"]["accuracy"]
    for place, accuracy in enumerate(y):
        if accuracy >= target:
            before = max(place - 1, 0)
            return float(np.interp(target, y[before : place + 1], x[before : place + 1]))
    return inf


def differences(run: Result, again: Result) -> int:
    """How many numbers of the shorter run `again` are others in `run`; times do not count."""
    count = 0
    for name, values in again["steps"].items():
        if not name.startswith("time/"):
            count += sum(one != two for one, two in zip(values, run["steps"][name], strict=False))
    for name, values in again["judged"].items():
        if name != "seconds":
            count += sum(one != two for one, two in zip(values, run["judged"][name], strict=False))
    return count
