"""The MemoryFormer experiment: count, train every arm at every learning rate, look inside, decode.

Stages: the counters of claim C1; the sweep of every arm with the first seed, and the rates that the paper
compares with all; the other seeds at each arm's own best rate; at laptop scale the ablations, shorter; then
decoding, alone on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lmlab import prepare
from lmlab.training import TrainingConfig
from memoryformer.reproduce.accounting import accounting_metrics
from memoryformer.reproduce.arms import ABLATIONS, ARMS, MEMORYFORMER, TRANSFORMER, Shape
from memoryformer.reproduce.claims import CLAIMS
from memoryformer.reproduce.comparisons import (
    ABLATION,
    ablation_metrics,
    best_rates,
    comparison_metrics,
    inside_metrics,
    stage,
)
from memoryformer.reproduce.decoding import DecodingConfig, decode, decoding_metrics
from memoryformer.reproduce.figures import figures
from memoryformer.reproduce.language import train_arm
from tenfold import Estimate, Experiment, Run, Trial


class AblationConfig(BaseModel):
    """Which ablations are trained, how long, and at which rate; the paper's setting has every seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arms: tuple[str, ...]
    max_steps: int = Field(gt=0)
    learning_rate: float = Field(gt=0)

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if not set(arms) <= set(ABLATIONS) - {MEMORYFORMER}:
            raise ValueError(
                f"ablations may be {', '.join(name for name in ABLATIONS if name != MEMORYFORMER)}"
            )
        return arms


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = "docs"
    vocab_size: int = Field(gt=0)
    context_length: int = Field(gt=0)
    shape: Shape
    seeds: tuple[int, ...] = Field(min_length=1)
    default_rate: float = Field(gt=0, description="the transformer's default; MemoryFormer's is 3 times that")
    learning_rates: dict[str, tuple[float, ...]] = Field(description="the sweep of each arm")
    choice_blocks: int = Field(gt=0, description="blocks that draw the curve and choose the learning rate")
    test_blocks: int = Field(gt=0, description="blocks of each text that judge")
    bucket_tokens: int = Field(gt=0, description="tokens that the bucket use is counted on")
    training: TrainingConfig
    ablations: AblationConfig | None = None
    decoding: DecodingConfig

    @property
    def paper_rates(self) -> dict[str, float]:
        """The rates that claim C2 compares, with every seed."""
        tripled = float(f"{3 * self.default_rate:g}")  # 0.0018, not 0.0017999999999999998
        return {TRANSFORMER: self.default_rate, MEMORYFORMER: tripled}

    @field_validator("learning_rates")
    @classmethod
    def _every_arm(cls, rates: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        if set(rates) != set(ARMS) or not all(rates.values()):
            raise ValueError(f"each of {', '.join(ARMS)} needs at least one rate, and there is no other arm")
        return rates


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Train all arms and return the metrics that the claims name."""
    prepare(config.corpus, config.vocab_size, config.context_length)
    books = run.has_data("books")
    metrics: dict[str, Estimate | float] = dict(accounting_metrics())
    trained = run.map(train_arm, first_trials(config, books))
    best = best_rates(trained, config.learning_rates)
    others = [
        trial_of(config, books, arm, rate, seed)
        for seed in config.seeds[1:]
        for arm, rate in best.items()
        if rate != config.paper_rates.get(arm)
    ]
    trained |= run.map(train_arm, others)
    metrics |= comparison_metrics(trained, best, config.default_rate) | inside_metrics(trained)
    metrics |= ablation_metrics(run.map(train_arm, ablation_trials(config, books)))
    decoded = Trial("decoding", 0, config.decoding.model_dump(mode="json"), stage="decoding")
    return metrics | decoding_metrics(run.map(decode, [decoded], jobs=1, threads=1)[decoded])


def first_trials(config: ExperimentConfig, books: bool) -> list[Trial]:
    """The sweep of every arm with the first seed, then the paper's rates with the others."""
    first, *others = config.seeds
    paper = config.paper_rates
    sweep = [
        trial_of(config, books, arm, rate, first)
        for arm, rates in config.learning_rates.items()
        for rate in sorted({*rates, paper.get(arm, rates[0])})
    ]
    return sweep + [
        trial_of(config, books, arm, rate, seed) for seed in others for arm, rate in paper.items()
    ]


def ablation_trials(config: ExperimentConfig, books: bool) -> list[Trial]:
    """The ablations with the first seed, and the paper's setting with all, for their spread."""
    if config.ablations is None:
        return []
    arms = [(MEMORYFORMER, seed) for seed in config.seeds]
    arms += [(arm, config.seeds[0]) for arm in config.ablations.arms]
    rate, steps = config.ablations.learning_rate, config.ablations.max_steps
    return [trial_of(config, books, arm, rate, seed, ablation_steps=steps) for arm, seed in arms]


def trial_of(
    config: ExperimentConfig,
    books: bool,
    arm: str,
    rate: float,
    seed: int,
    *,
    ablation_steps: int | None = None,
) -> Trial:
    """One arm at one rate with one seed; MemoryFormer at the paper's rate is looked into after training."""
    kept = {"corpus", "vocab_size", "context_length", "shape", "choice_blocks", "test_blocks", "training"}
    settings = config.model_dump(mode="json", include=kept | {"bucket_tokens"})
    settings |= {"learning_rate": rate, "books": books, "inspected": False}
    if ablation_steps is not None:
        settings["training"]["max_steps"] = ablation_steps
        return Trial(arm, seed, settings, stage=ABLATION)
    settings["inspected"] = arm == MEMORYFORMER and rate == config.paper_rates[MEMORYFORMER]
    return Trial(arm, seed, settings, stage=stage(rate))


EXPERIMENT = Experiment(
    name="memoryformer",
    title="MemoryFormer: less Transformer computation without fully connected layers",
    paper="Ding, Tang, Qin, Zhou, Xu, Li, Han, Liao, Wang: MemoryFormer: Minimize Transformer Computation by "
    "Removing Fully-Connected Layers. NeurIPS 2024, arXiv 2411.12992",
    url="https://arxiv.org/abs/2411.12992",
    summary="Replace every fully connected layer by hashed look-ups in large tables: is the model as good, "
    "at equal steps, FLOPs, parameters and seconds, and does it decode faster?",
    config_model=ExperimentConfig,
    configs="memoryformer.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
    gating=("C1", "C2"),
)
