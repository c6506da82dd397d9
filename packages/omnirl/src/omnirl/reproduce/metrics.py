"""From the results of the trials to the metrics that the claims name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnirl.reproduce import contexts, playing, ppo, training, worlds
from omnirl.reproduce.playing import LEARNERS
from tenfold import Trial
from tenfold.estimates import less
from tenfold.trials import by_arm

Result = Mapping[str, Any]
Results = Mapping[str, Mapping[int, Result]]
"""Of every arm of a stage, by seed."""
Metrics = dict[str, list[float] | float]


def all_metrics(found: Mapping[Trial, Result]) -> Metrics:
    """The metrics of every stage; those of parts that were not run are absent."""
    played = by_arm(found, playing.STAGE)
    metrics = start_metrics(played) | lake_metrics(played) | learner_metrics(played)
    metrics |= method_metrics(played) | control_metrics(played)
    metrics |= pool_metrics(by_arm(found, contexts.STAGE))
    for family, seeds in by_arm(found, worlds.STAGE).items():
        metrics[f"rarity_{family}"] = samples(seeds, "rarity")
    for arm, seeds in by_arm(found, training.STAGE).items():
        metrics |= {f"{name}_{arm}": [result[name] for result in seeds.values()] for name in _TRAINED}
    return metrics | ppo_metrics(by_arm(found, ppo.STAGE))


_TRAINED = ("parameters", "steps", "skipped_updates")


def samples(seeds: Mapping[int, Result], name: str) -> list[float]:
    """One number a task (a run of FrozenLake), of all seeds in order."""
    return [value for result in seeds.values() for value in result[name]]


def start_metrics(played: Results) -> Metrics:
    """The scores of the main model by its start: claims Q1 to Q4."""
    first, last = (samples(played["online"], name) for name in ("first", "last"))
    found: Metrics = {"online_first": first, "online_last": last, "online_gain": less(last, first)}
    for arm in ("offline_random", "offline_random_hidden", "noisy", "noisy_untagged", "imitation"):
        found[arm] = samples(played[arm], "score")
        found[f"{arm}_teacher"] = samples(played[arm], "teacher")
    found["noisy_gain"] = less(samples(played["noisy"], "score"), samples(played["noisy"], "teacher"))
    if "online_long" in played:
        found["online_1000"] = samples(played["online_long"], "last_quarter")
    return found


def lake_metrics(played: Results) -> Metrics:
    """FrozenLake: claims Q5 and G2."""
    arms = {"lake": "", "lake_hidden": "_hidden", "lake_slippery": "_slippery"}
    return {f"lake_success{end}": samples(played[arm], "success") for arm, end in arms.items()}


def learner_metrics(played: Results) -> Metrics:
    """The learners that begin with empty tables, and the model less each of them, paired over tasks."""
    last = samples(played["online"], "last")
    found: Metrics = {}
    for name in LEARNERS:
        found[f"{name}_last"] = samples(played[name], "last")
        found[f"online_minus_{name}"] = less(last, samples(played[name], "last"))
        if "online_long" in played:
            found[f"{name}_1000"] = samples(played[name], "last_quarter")
    return found


def control_metrics(played: Results) -> Metrics:
    """What must be nothing: changed parameters (Q6), tasks that were trained on (Q8); a sample a trial.

    Absent where no trial could tell, so that the claim is not tested rather than held.
    """
    trials = [result for seeds in played.values() for result in seeds.values()]
    names = ("changed_parameters", "shared_tasks")
    found = {name: [float(result[name]) for result in trials if name in result] for name in names}
    return {name: values for name, values in found.items() if values}


def method_metrics(played: Results) -> Metrics:
    """The methods' scores, and what L2 and L3 compare, paired over tasks."""
    found: Metrics = {}
    for method in ("dpd", "dpd_untagged", "dpt", "ad", "ad_eps", "star"):
        if f"{method}_online" not in played:
            continue
        found[f"online_{method}"] = samples(played[f"{method}_online"], "last")
        found[f"noisy_{method}"] = samples(played[f"{method}_noisy"], "score")
        found[f"imitation_{method}"] = samples(played[f"{method}_imitation"], "score")
    if "online_dpd" not in found:
        return found
    for start, method in (("noisy", "dpt"), ("online", "ad"), ("online", "ad_eps")):
        found[f"{start}_dpd_minus_{method}"] = _difference(found, f"{start}_dpd", f"{start}_{method}")
    found["noisy_dpd_minus_untagged"] = _difference(found, "noisy_dpd", "noisy_dpd_untagged")
    return found


def pool_metrics(results: Results) -> Metrics:
    """Gains within the context by the number of training tasks, and what L4 asks of them."""
    sizes = sorted(int(arm.split("_")[1]) for arm in results if arm.endswith("_unseen"))
    if len(sizes) < 3:
        return {}
    gain = {
        (size, name): [result["gain"][-1] for result in results[f"pool_{size}_{name}"].values()]
        for size in sizes
        for name in ("seen", "unseen")
    }
    found: Metrics = {f"{name}_gain_{size}": value for (size, name), value in gain.items()}
    gaps = [less(gain[size, "seen"], gain[size, "unseen"]) for size in sizes]
    for step, (low, high) in enumerate(((0, 1), (1, 2))):
        end = ("low", "high")[step]
        found[f"unseen_gain_rise_{end}"] = less(gain[sizes[high], "unseen"], gain[sizes[low], "unseen"])
        found[f"seen_unseen_gap_fall_{end}"] = less(gaps[low], gaps[high])
    return found


def ppo_metrics(results: Results) -> Metrics:
    """PPO's score after each number of steps, a sample a task."""
    found: Metrics = {}
    for result in results.get("ppo", {}).values():
        for number, steps in enumerate(result["steps"]):
            found[f"ppo_{steps}"] = [scores[number] for scores in result["scores"]]
    return found


def _difference(metrics: Metrics, one: str, other: str) -> list[float]:
    left, right = metrics[one], metrics[other]
    assert isinstance(left, list)
    assert isinstance(right, list)
    return less(left, right)
