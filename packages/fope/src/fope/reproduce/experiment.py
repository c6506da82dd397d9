"""The FoPE experiment: train every arm, read far beyond the training length, convert a trained model.

Stages: the arms with their seeds (`language.train_arm`); at laptop scale the noise gain of the coefficients;
SmolLM2-135M converted without fine-tuning (`pretrained.conversion_costs`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from fope.reproduce.claims import CLAIMS
from fope.reproduce.figures import figures
from fope.reproduce.language import BYTES, GAINS, MULTIPLES, train_arm
from fope.reproduce.passkey import PasskeyConfig
from fope.reproduce.pretrained import conversion_costs
from lmlab import prepare
from lmlab.training import TrainingConfig
from tenfold import Estimate, Experiment, Run, Trial

Metrics = dict[str, Estimate | float]


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = "docs"
    context_length: int = Field(gt=0)
    shape: dict[str, Any]
    seeds: dict[str, int] = Field(description="how many seeds each arm has; the first is 0")
    eval_tokens: int = Field(gt=0, description="tokens of each text that losses are measured on")
    curve_blocks: int = Field(gt=0, description="blocks of the validation text that draw the curve")
    training: TrainingConfig
    passkey: PasskeyConfig | None = None
    gains: tuple[float, ...] = Field((), description="noise gains of the coefficients to compare")
    gain_steps: int = Field(400, gt=0)
    pretrained_tokens: int = Field(384, gt=1)


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Train all arms and return the metrics that the claims name."""
    prepare(config.corpus, context_length=config.context_length, vocab_size=BYTES)
    books = run.has_data("books")
    trained = run.map(train_arm, [*arm_trials(config, books), *gain_trials(config)])
    metrics = arm_metrics(trained, config.context_length)
    if run.has_data("smollm2-135m"):
        settings = {"tokens": config.pretrained_tokens, "books": books}
        trial = Trial("smollm2-135m", 0, settings, stage="pretrained")
        metrics |= run.map(conversion_costs, [trial], jobs=1, threads=2)[trial]
    return metrics


def arm_trials(config: ExperimentConfig, books: bool) -> list[Trial]:
    """The arms with their seeds; those that are taught passkeys, which take longest, before the others."""
    taught = config.passkey.arms if config.passkey else ()
    trials = [
        _trial(config, arm, seed, books, passkey=arm in taught)
        for seed in range(max(config.seeds.values()))
        for arm, count in config.seeds.items()
        if seed < count
    ]
    return sorted(trials, key=lambda trial: trial.arm not in taught)


def gain_trials(config: ExperimentConfig) -> list[Trial]:
    """FoPE with each noise gain, trained shorter, one seed."""
    training = {"max_steps": config.gain_steps, "warmup_steps": min(100, config.gain_steps // 4)}
    return [
        _trial(
            config,
            "fope",
            0,
            books=False,
            stage=f"{GAINS} {gain:g}",
            options={"init_gain": gain},
            training=training,
        )
        for gain in config.gains
    ]


def _trial(
    config: ExperimentConfig,
    arm: str,
    seed: int,
    books: bool,
    *,
    stage: str = "",
    passkey: bool = False,
    options: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Trial:
    plain = config.model_dump(mode="json")
    settings = {
        key: plain[key] for key in ("corpus", "context_length", "shape", "eval_tokens", "curve_blocks")
    }
    settings |= {
        "training": plain["training"] | dict(training or {}),
        "passkey": plain["passkey"] if passkey else None,
        "options": dict(options or {}),
        "books": books,
    }
    return Trial(arm=arm, seed=seed, settings=settings, stage=stage)


def arm_metrics(trained: Mapping[Trial, Mapping[str, Any]], length: int) -> Metrics:
    """Losses, growths, passkey shares and comparisons; `trained` is in the order of the seeds."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    metrics: Metrics = {}
    for trial, result in trained.items():
        if trial.stage:
            metrics[f"growth_valid_{_name(trial.stage)}"] = growth(result, "valid", length)
            metrics[f"loss_valid_{_name(trial.stage)}_1L"] = result["losses"]["valid"][str(length)]
        else:
            arms.setdefault(trial.arm, []).append(result)
    for arm, results in arms.items():
        for split in results[0]["losses"]:
            for multiple in MULTIPLES:
                losses = [result["losses"][split][str(multiple * length)] for result in results]
                metrics[f"ppl_{split}_{_name(arm)}_{multiple}L"] = Estimate.of([math.exp(x) for x in losses])
            metrics[f"growth_{split}_{_name(arm)}"] = Estimate.of([growth(r, split, length) for r in results])
        if all("passkey" in result for result in results):
            for multiple in MULTIPLES:
                found = [float(np.mean(result["passkey"][str(multiple * length)])) for result in results]
                metrics[f"passkey_{_name(arm)}_{multiple}L"] = Estimate.of(found)
            metrics[f"passkey_lessons_{_name(arm)}"] = Estimate.of([r["lessons"] for r in results])
    return metrics | comparisons(arms, length)


def growth(result: Mapping[str, Any], split: str, length: int) -> float:
    """How much the loss grows from L to 16 L, in nats."""
    losses = result["losses"][split]
    return losses[str(MULTIPLES[-1] * length)] - losses[str(length)]


def comparisons(arms: Mapping[str, Sequence[Mapping[str, Any]]], length: int) -> Metrics:
    """What the claims compare, seed by seed; an arm that was left out leaves its comparisons out."""
    metrics: Metrics = {}
    fope, rope = arms.get("fope", ()), arms.get("rope", ())
    for split in fope[0]["losses"] if fope else ():
        grown = [
            (growth(a, split, length), growth(b, split, length)) for a, b in zip(fope, rope, strict=False)
        ]
        if grown and all(base > 0 for _, base in grown):  # else there is no degradation to compare
            metrics[f"growth_ratio_{split}"] = Estimate.of([ours / base for ours, base in grown])
    for arm, other in (("fope", "rope"), ("fope", "cf"), ("fs", "rope")):
        pairs = list(zip(arms.get(arm, ()), arms.get(other, ()), strict=False))
        for multiple in MULTIPLES if pairs else ():
            key = str(multiple * length)
            metrics[f"{arm}_minus_{other}_{multiple}L"] = Estimate.of(
                [a["losses"]["valid"][key] - b["losses"]["valid"][key] for a, b in pairs]
            )
    longest, pairs = str(MULTIPLES[-1] * length), list(zip(fope, rope, strict=False))
    if pairs and all("heldout" in result["losses"] for pair in pairs for result in pair):
        metrics["ppl_ratio_fope_to_rope_16L"] = Estimate.of(
            [out_of_distribution(a, longest) / out_of_distribution(b, longest) for a, b in pairs]
        )
    if pairs and all("passkey" in result for pair in pairs for result in pair):
        at = str(4 * length)
        metrics["passkey_fope_minus_rope_4L"] = Estimate.of(
            [float(np.mean(a["passkey"][at]) - np.mean(b["passkey"][at])) for a, b in pairs]
        )
    return metrics


def out_of_distribution(result: Mapping[str, Any], length: str) -> float:
    """The paper's PPL ratio: perplexity on the held-out library over that on text of the kind trained on."""
    return math.exp(result["losses"]["heldout"][length] - result["losses"]["valid"][length])


def _name(text: str) -> str:
    return text.replace("-", "_").replace(" ", "_")


EXPERIMENT = Experiment(
    name="fope",
    title="Fourier Position Embedding",
    paper="Hua, Jiang, Lv, Zhang, Sun, Fan, Zhu, Qi, Ding, Zhou: Fourier Position Embedding: Enhancing "
    "Attention's Periodic Extension for Length Generalization. ICML 2025, arXiv 2412.17739",
    url="https://arxiv.org/abs/2412.17739",
    summary="Give every rotary channel a Fourier series and set to zero the frequencies that never complete "
    "a cycle in training: does the model read on beyond its training length, and which half does it?",
    config_model=ExperimentConfig,
    configs="fope.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
    gating=("A", "B"),
)
