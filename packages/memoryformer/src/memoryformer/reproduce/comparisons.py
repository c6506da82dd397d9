"""From the trained arms to the metrics that the claims name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from memoryformer.reproduce.arms import MEMORYFORMER, NARROW_FC, NARROW_TOTAL, TRANSFORMER
from tenfold import Estimate, Trial

Metrics = dict[str, Estimate | float]
Result = Mapping[str, Any]
Trained = Mapping[Trial, Result]

ABLATION = "ablation"  # the stage of the ablations


def stage(rate: float) -> str:
    """The stage of a training trial: the rate it trains at."""
    return f"lr {rate:g}"


def by_rate(trained: Trained, arm: str, rate: float) -> list[Result]:
    """The results of an arm at a rate, in the order of the seeds."""
    found = {
        trial.seed: result
        for trial, result in trained.items()
        if (trial.arm, trial.stage) == (arm, stage(rate))
    }
    return [found[seed] for seed in sorted(found)]


def best_rates(trained: Trained, sweeps: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """For each arm the rate of its sweep whose first seed has the lowest loss on the choosing text."""
    return {
        arm: min(rates, key=lambda rate: by_rate(trained, arm, rate)[0]["choice_loss"])
        for arm, rates in sweeps.items()
    }


def comparison_metrics(trained: Trained, best: Mapping[str, float], default_rate: float) -> Metrics:
    """Losses of every arm and rate, and the margins and spreads of claims C2 to C4."""
    metrics: Metrics = {f"best_rate_{_name(arm)}": rate for arm, rate in best.items()}
    for arm, found_stage in dict.fromkeys((trial.arm, trial.stage) for trial in trained):
        rate = float(found_stage.removeprefix("lr "))
        results = by_rate(trained, arm, rate)
        for text in results[0]["losses"]:
            metrics[f"{text}_loss_{_name(arm)}_{rate:g}"] = losses(results, text)
    for arm in best:
        results = by_rate(trained, arm, best[arm])
        metrics[f"bits_per_byte_{_name(arm)}"] = Estimate.of([r["bits_per_byte"]["valid"] for r in results])
        metrics[f"parameters_{_name(arm)}"] = float(results[0]["parameters"])
        metrics[f"training_flops_a_token_{_name(arm)}"] = float(results[0]["flops"])
        metrics[f"tokens_per_second_{_name(arm)}"] = Estimate.of([r["tokens_per_second"] for r in results])
    dense, ours = (
        by_rate(trained, TRANSFORMER, default_rate),
        by_rate(trained, MEMORYFORMER, 3 * default_rate),
    )
    metrics |= margins(dense, ours, f"{TRANSFORMER}_minus", f"spread_{TRANSFORMER}")
    ours = by_rate(trained, MEMORYFORMER, best[MEMORYFORMER])
    for arm in (TRANSFORMER, NARROW_FC, NARROW_TOTAL):
        others, name = by_rate(trained, arm, best[arm]), _name(arm)
        metrics |= margins(others, ours, f"best_{name}_minus", f"best_spread_{name}")
    default = by_rate(trained, MEMORYFORMER, default_rate)
    tripled = by_rate(trained, MEMORYFORMER, 3 * default_rate)
    if default:  # as many seeds as it has: the first one, unless it is the best rate
        metrics["loss_3x_minus_1x"] = paired(tripled[: len(default)], default, "valid")
    return metrics


def margins(others: Sequence[Result], ours: Sequence[Result], margin: str, spread: str) -> Metrics:
    """On each text the loss of `others` minus ours, seed by seed, and the spread of the two."""
    metrics: Metrics = {}
    for text in ours[0]["losses"]:
        prefix = "" if text == "valid" else f"{text}_"
        metrics[f"{prefix}{margin}_{MEMORYFORMER}"] = paired(others, ours, text)
        metrics[f"{prefix}{spread}_{MEMORYFORMER}"] = max(
            width(losses(others, text)), width(losses(ours, text))
        )
    return metrics


def losses(results: Sequence[Result], text: str) -> Estimate:
    """The losses on a text, a sample a seed."""
    return Estimate.of([result["losses"][text] for result in results])


def paired(a: Sequence[Result], b: Sequence[Result], text: str) -> Estimate:
    """Loss of `a` minus loss of `b` on a text, seed by seed."""
    pairs = zip(losses(a, text).samples, losses(b, text).samples, strict=True)
    return Estimate.of([first - second for first, second in pairs])


def width(estimate: Estimate) -> float:
    """The spread of the seeds, max - min; not a number for one seed, which has none."""
    samples = estimate.samples
    return max(samples) - min(samples) if len(samples) > 1 else math.nan


def inside_metrics(trained: Trained) -> Metrics:
    """Bucket use and the cost of int8 of the inspected models: means over tables, the worst layer."""
    inspected = {trial.seed: result for trial, result in trained.items() if "buckets" in result}
    results = [inspected[seed] for seed in sorted(inspected)]
    metrics: Metrics = {
        "int8_costs": Estimate.of([result["int8_loss"] - result["losses"]["valid"] for result in results]),
        "least_bucket_entropy": Estimate.of([min(_of_layers(r, "entropy")) for r in results]),
        "most_dead_rows": Estimate.of([max(_of_layers(r, "dead_rows")) for r in results]),
        "largest_bucket": Estimate.of([max(_of_layers(r, "max_share")) for r in results]),
    }
    for layer in results[0]["buckets"]:
        for key in ("entropy", "dead_rows", "max_share", "flip_rate"):
            samples = [result["buckets"][layer][key] for result in results]
            metrics[f"bucket_{key}_{layer}"] = Estimate.of(samples)
    return metrics


def _of_layers(result: Result, key: str) -> list[float]:
    return [layer[key] for layer in result["buckets"].values()]


def ablation_metrics(trained: Trained) -> Metrics:
    """Losses of the ablations and the comparisons of claims C5 to C7; empty where there are none.

    An ablation is compared with the paper's setting of the same seed; the spread is that of the setting.
    """
    if not trained:
        return {}
    arms: dict[str, list[Result]] = {}
    for trial, result in sorted(trained.items(), key=lambda item: item[0].seed):
        arms.setdefault(trial.arm, []).append(result)
    found = {arm: losses(results, "valid") for arm, results in arms.items()}
    first = {arm: estimate.samples[0] for arm, estimate in found.items()}
    metrics: Metrics = {f"ablation_loss_{_name(arm)}": estimate for arm, estimate in found.items()}
    metrics["spread_ablations"] = width(found[MEMORYFORMER])
    if {"bits-0", "bits-1", "bits-3"} <= set(first):
        bits = [first[arm] for arm in ("bits-0", "bits-1", MEMORYFORMER, "bits-3")]
        metrics["loss_2_minus_0_bits"] = bits[2] - bits[0]
        metrics["worst_step_of_bits"] = max(more - fewer for fewer, more in itertools.pairwise(bits))
    if "tau-4" in first:
        metrics["loss_tau8_minus_tau4"] = first[MEMORYFORMER] - first["tau-4"]
    if "gelu" in first:
        metrics["gelu_changes_loss"] = abs(first["gelu"] - first[MEMORYFORMER])
    return metrics


def _name(text: str) -> str:
    return text.replace("-", "_")
