"""The LPA experiment: train every arm at its best learning rate, then measure steps against the FLOP model.

Stages: a learning-rate sweep with the first seed of every arm; the other seeds at each arm's best rate
(chosen on the first half of the validation text, judged on the second); step times, alone on the machine.
At the paper's scale trainings too run one at a time, each with the accelerator to itself.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel

from lmlab import PreparedCorpus, TokenBlocks, prepare
from lmlab.accounting import count_parameters
from lmlab.evaluation import perplexity
from lmlab.packing import pack
from lmlab.training import NonFiniteLossError, TrainingConfig, train
from lpa.layers import LowRankLinear
from lpa.reproduce.arms import ARMS, ATTENTION
from lpa.reproduce.claims import CLAIMS
from lpa.reproduce.figures import figures, stage
from lpa.reproduce.timing import TimingConfig, step_time_minus_prediction, training_time_saved
from tenfold import Estimate, Experiment, Run, Trial, TrialContext


class ExperimentConfig(BaseModel):
    """One scale of the experiment; `configs/*.toml` hold its values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str = "docs"
    vocab_size: int = Field(gt=0)
    context_length: int = Field(gt=0)
    shape: dict[str, Any]
    rank: int = Field(gt=0)
    arms: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    choice_blocks: int = Field(gt=0, description="blocks that draw the curve and choose the learning rate")
    test_blocks: int = Field(gt=0, description="blocks for each final perplexity")
    training: TrainingConfig
    timing: TimingConfig


def run(config: ExperimentConfig, run: Run) -> Mapping[str, Estimate | float]:
    """Train all arms and return the metrics that the claims name."""
    prepare(config.corpus, config.vocab_size, config.context_length)
    first, *others = config.seeds
    jobs = 1 if run.scale == "paper" else None  # one a core would all train on the first GPU
    swept = run.map(
        train_arm,
        [_trial(config, run, arm, first, rate) for arm in config.arms for rate in config.learning_rates],
        jobs=jobs,
    )
    best = best_rates(swept)
    rest = run.map(
        train_arm,
        [_trial(config, run, arm, seed, best[arm]) for arm in config.arms for seed in others],
        jobs=jobs,
    )
    results = {
        arm: [
            result
            for trial, result in {**swept, **rest}.items()
            if trial.arm == arm and trial.settings["learning_rate"] == best[arm]
        ]
        for arm in config.arms
    }
    metrics = quality_metrics(results) | {f"learning_rate_{_name(arm)}": rate for arm, rate in best.items()}
    return metrics | time_metrics(config.timing, run)


def _trial(config: ExperimentConfig, run: Run, arm: str, seed: int, learning_rate: float) -> Trial:
    settings = config.model_dump(
        mode="json",
        exclude={"arms", "learning_rates", "seeds", "timing"},
    )
    settings |= {"learning_rate": learning_rate, "books": run.has_data("books")}
    return Trial(arm=arm, seed=seed, settings=settings, stage=stage(learning_rate))


def train_arm(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train one arm with one seed and learning rate; runs in a process of its own.

    Where training diverges the losses are infinite, so that no sweep chooses that rate, and the step is told.
    """
    settings = trial.settings
    corpus = prepare(settings["corpus"], settings["vocab_size"], settings["context_length"])
    choice, test = corpus.valid.halves(settings["choice_blocks"], settings["test_blocks"])
    model = ARMS[trial.arm](
        settings["shape"] | {"vocab_size": len(corpus.tokenizer)}, settings["rank"], trial.seed
    )
    training = TrainingConfig(
        **settings["training"]
        | {"learning_rate": settings["learning_rate"], "seed": trial.seed, "data_seed": trial.seed}
    )
    sizes = {
        "parameters": count_parameters(model),
        "block_parameters": count_parameters(model, embedding=False),
    }
    try:
        outcome = train(
            model,
            corpus.train,
            training,
            valid_data=choice,
            directory=context.checkpoint_dir,
            on_evaluate=lambda step, entry: context.log(int(entry.pop("step")), **entry),
            on_progress=context.progress,
        )
    except NonFiniteLossError as error:
        lost = dict.fromkeys(("choice_loss", "late_loss", "test_ppl"), math.inf)
        return sizes | lost | {"diverged_at_step": error.step}
    late = [row["valid_loss"] for row in outcome.curve if row["step"] > training.max_steps / 2]
    return sizes | {
        "choice_loss": outcome.curve[-1]["valid_loss"],
        "late_loss": float(np.mean(late)),
        "spectrum": attention_spectrum(model),
        "tokens_per_second": outcome.tokens_per_second,
        **final_perplexities(model, corpus, test, books=settings["books"]),
    }


def final_perplexities(
    model: PreTrainedModel, corpus: PreparedCorpus, test: TokenBlocks, *, books: bool
) -> dict[str, float]:
    """Perplexity and bits per byte on the test text, the held-out library and, if to be had, the books."""
    texts = {"test": test}
    if corpus.heldout is not None:
        texts["heldout"] = corpus.heldout.slice(0, min(len(corpus.heldout), len(test)))
    if books:
        blocks = pack("books", "heldout", corpus.tokenizer, corpus.context_length)
        texts["books"] = blocks.slice(0, min(len(blocks), len(test)))
    found: dict[str, float] = {}
    for name, blocks in texts.items():
        score = perplexity(model, blocks)
        found[f"{name}_ppl"] = score.ppl
        if score.bits_per_byte is not None:
            found[f"{name}_bits_per_byte"] = score.bits_per_byte
    return found


@torch.no_grad()
def attention_spectrum(model: PreTrainedModel) -> dict[str, list[float]]:
    """Singular values of W_q, W_k, W_v, W_o (B A for LPA) over the largest, averaged over layers."""
    spectra: dict[str, list[torch.Tensor]] = {name: [] for name in ATTENTION}
    for name, module in model.named_modules():
        kind = name.rpartition(".")[2]
        if kind in spectra:
            weight = module.effective_weight() if isinstance(module, LowRankLinear) else module.weight
            values = torch.linalg.svdvals(weight)
            spectra[kind].append(values / values[0])
    return {kind: torch.stack(values).mean(0).tolist() for kind, values in spectra.items()}


def best_rates(swept: Mapping[Trial, Mapping[str, Any]]) -> dict[str, float]:
    """For each arm the learning rate with the lowest loss on the choosing half of the validation text."""
    best: dict[str, tuple[float, float]] = {}
    for trial, result in swept.items():
        candidate = (result["choice_loss"], trial.settings["learning_rate"])
        best[trial.arm] = min(best.get(trial.arm, candidate), candidate)
    return {arm: rate for arm, (_, rate) in best.items()}


def quality_metrics(results: Mapping[str, list[dict[str, Any]]]) -> dict[str, Estimate | float]:
    """Perplexities by arm and their ratios, paired by seed; `results[arm]` is in the order of the seeds."""
    metrics: dict[str, Estimate | float] = {}
    for arm, trials in results.items():
        for key in ("test_ppl", "test_bits_per_byte", "heldout_ppl", "books_ppl"):
            if all(key in trial for trial in trials):
                metrics[f"{key}_{_name(arm)}"] = Estimate.of([trial[key] for trial in trials])
        metrics[f"block_parameters_{_name(arm)}"] = float(trials[0]["block_parameters"])
    for arm, other in PAIRS:
        if arm in results and other in results:
            pairs = list(zip(results[arm], results[other], strict=True))
            name = f"ratio_{_name(arm)}_to_{_name(other)}"
            metrics[name] = Estimate.of([_over(a["test_ppl"], b["test_ppl"]) for a, b in pairs])
            late = [(math.exp(a["late_loss"]), math.exp(b["late_loss"])) for a, b in pairs]
            metrics[f"late_{name}"] = Estimate.of([_over(a, b) for a, b in late])
            if all("books_ppl" in result for pair in pairs for result in pair):
                metrics[f"books_{name}"] = Estimate.of([a["books_ppl"] / b["books_ppl"] for a, b in pairs])
    dense, lpa = metrics["block_parameters_dense"], metrics["block_parameters_lpa"]
    metrics["parameters_removed"] = 1 - float(lpa) / float(dense)  # type: ignore[arg-type]
    metrics |= initialisation_share(metrics)
    return metrics


def _over(ppl: float, other: float) -> float:
    """Their ratio; not a number, on which no claim is judged, where the other training diverged."""
    return ppl / other if math.isfinite(other) else math.nan


PAIRS = (
    ("lpa", "dense"),
    ("lpa", "dense-scaled"),
    ("lpa-matched", "dense"),
    ("dense-scaled", "dense"),
    ("lpa", "low-ffn"),
    ("lpa", "low-all"),
    ("lpa-widened", "dense"),
)


def initialisation_share(metrics: Mapping[str, Estimate | float]) -> dict[str, float]:
    """How much of LPA's gain a smaller start alone gives: (dense - dense-scaled) / (dense - LPA) of mean PPL.

    Empty where LPA does not gain, since there is then nothing to share out, or where one of them diverged.
    """
    dense, scaled, lpa = (metrics[f"test_ppl_{arm}"].mean for arm in ("dense", "dense_scaled", "lpa"))  # type: ignore[union-attr]
    shared = lpa < dense < math.inf and math.isfinite(scaled)
    return {"initialisation_share": (dense - scaled) / (dense - lpa)} if shared else {}


def time_metrics(timing: TimingConfig, run: Run) -> dict[str, Estimate | float]:
    """Step times of LPA against dense, one at a time with all cores."""
    metrics: dict[str, Estimate | float] = {}
    for measure in (step_time_minus_prediction, training_time_saved):
        trials = timing.trials(measure.__name__)
        results = run.map(measure, trials, jobs=1, threads=timing.threads) if trials else {}
        rounds = [result for trial, result in results.items() if trial.settings["rank"] == timing.rank]
        for key in rounds[0] if rounds else ():
            metrics[key] = Estimate.of([result[key] for result in rounds])
    return metrics


def _name(arm: str) -> str:
    return arm.replace("-", "_")


EXPERIMENT = Experiment(
    name="lpa",
    title="Low-dimensional Projected Attention",
    paper="Lv, Ding, Zhang, Hua, Cui, Zhou: Scalable Efficient Training of Large Language Models with "
    "Low-dimensional Projected Attention. EMNLP 2024, arXiv 2411.02063",
    url="https://arxiv.org/abs/2411.02063",
    summary="Replace the q, k, v, o matrices of every attention layer by two thin ones and train from "
    "scratch: is the model as good, and is the gain more than a smaller start?",
    config_model=ExperimentConfig,
    configs="lpa.reproduce.configs",
    run=run,
    claims=CLAIMS,
    figures=figures,
)
