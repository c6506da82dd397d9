"""From the results of the trials to the metrics that the claims name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

from implicit_prm.reproduce.evaluation import SIZES
from implicit_prm.reproduce.prm_study import UNTRAINED
from tenfold.estimates import less

Metrics = dict[str, list[float] | float]
Result = Mapping[str, Any]
Results = Mapping[str, Mapping[int, Result]]
"""Of every arm, by seed."""

TEMPERATURE = "0.5"
N = 16


def chain_metrics(results: Results, main: str, prefix: str = "") -> Metrics:
    """What claims C1, C2, C3, C6 and C7 ask of the arm `main`, and the numbers behind it; a sample a seed."""
    ours = [at(result) for result in results[main].values()]
    bare = [at(result)["without"] for result in results[UNTRAINED].values()]
    best = [bon(one["with"]) for one in ours]
    without = [bon(one["without"]) for one in ours]
    majority = [value(one["majority"]) for one in ours]
    weighted = [value(one["with"]["weighted"]) for one in ours]
    likelihood, likelihood_sum = ([bon(one, how) for one in bare] for how in ("min", "sum"))
    found: dict[str, list[float] | float] = {
        "pass1": [value(one["majority"], 1) for one in ours],
        "oracle16": [value(one["oracle"]) for one in ours],
        "majority16": majority,
        "weighted16": weighted,
        "bon16_without_reference": without,
        "likelihood16": likelihood,
        "likelihood16_sum": likelihood_sum,
        "step_auc": [one["with"]["step_auc"] for one in ours],
        "step_auc_without_reference": [one["without"]["step_auc"] for one in ours],
        "step_auc_untrained": [one["step_auc"] for one in bare],
        "bon16_minus_majority16": less(best, majority),
        "bon16_minus_likelihood16": less(best, likelihood),
        "bon16_minus_likelihood16_sum": less(best, likelihood_sum),
        "bon16_without_minus_with_reference": less(without, best),
        "weighted16_minus_majority16": less(weighted, majority),
    }
    for n in SIZES[SIZES.index(N) : len(ours[0]["oracle"])]:
        found[f"bon{n}"] = [bon(one["with"], n=n) for one in ours]
        found[f"bon{n}_last"] = [bon(one["with"], "last", n) for one in ours]
    return {f"{prefix}{name}": samples for name, samples in found.items()}


def arm_metrics(results: Results) -> Metrics:
    """Best-of-16 of every arm, and what C4, C5, R3 and R4 compare."""
    found: Metrics = {}
    for arm, seeds in results.items():
        if arm != UNTRAINED:
            found[f"bon16_{arm}"] = [bon(at(result)["with"]) for result in seeds.values()]
            found[f"step_auc_{arm}"] = [at(result)["with"]["step_auc"] for result in seeds.values()]
            if arm.startswith("ce-"):
                found[f"flops_{arm}"] = [float(sum(result["flops"].values())) for result in seeds.values()]
    if "ce-500x1" in results:
        pass1 = [value(at(result)["majority"], 1) for result in results["ce-500x1"].values()]
        found["bon16_one_response_minus_pass1"] = less(_samples(found, "bon16_ce-500x1"), pass1)
    for name, one, other in (
        ("bon16_dpo_minus_ce", "dpo-500x8", "ce-500x8"),
        ("bon16_prompts_minus_responses", "ce-4000x1", "ce-500x8"),
    ):
        if one in results and other in results:
            found[name] = [
                bon(at(results[one][seed])["with"]) - bon(at(results[other][seed])["with"])
                for seed in results[one]
                if seed in results[other]
            ]
    grown = [mean(_samples(found, f"bon16_{arm}")) for arm in grown_arms(results)]
    if len(grown) > 2:
        found["smallest_bon16_step"] = min(more - fewer for fewer, more in pairwise(grown))
    return found


def grown_arms(results: Mapping[str, Any]) -> list[str]:
    """The arms of the scaling curve, CE on 8 responses a prompt, fewest prompts first."""
    arms = [arm for arm in results if arm.startswith("ce-") and arm.endswith("x8")]
    return sorted(arms, key=prompts_of)


def prompts_of(arm: str) -> int:
    """The number of prompts in an arm's name."""
    return int(arm.rpartition("-")[2].partition("x")[0])


def overoptimization_metrics(results: Results, main: str) -> Metrics:
    """R1: at temperature 1, what best-of-64 adds to best-of-4, with and without the reference."""
    hot = [result["temperatures"]["1"] for result in results[main].values() if "1" in result["temperatures"]]
    if not hot:
        return {}
    return {
        "t1_bon64_minus_bon4": [bon(one["with"], n=64) - bon(one["with"], n=4) for one in hot],
        "t1_bon64_minus_bon4_without_reference": [
            bon(one["without"], n=64) - bon(one["without"], n=4) for one in hot
        ],
    }


def at(result: Result, temperature: str = TEMPERATURE) -> Result:
    """What a trial found at a temperature."""
    return result["temperatures"][temperature]


def bon(judged: Result, how: str = "min", n: int = N) -> float:
    """Accuracy of best-of-n in %."""
    return value(judged["best"][how], n)


def value(curve: Sequence[float], n: int = N) -> float:
    """The value of a curve at n responses."""
    return curve[SIZES.index(n)]


def _samples(metrics: Metrics, name: str) -> list[float]:
    found = metrics[name]
    return found if isinstance(found, list) else [found]
