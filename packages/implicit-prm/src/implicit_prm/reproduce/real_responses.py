"""R5: real solutions of GSM8K by GPT-3-class models, and SmolLM2-135M as policy and reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from implicit_prm.aggregation import aggregate_all
from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.model import ImplicitPRM
from implicit_prm.pretrained import load_model, load_tokenizer
from implicit_prm.records import read_rows, ungrouped
from implicit_prm.reproduce.claims import PRIOR, SOLUTIONS
from implicit_prm.reproduce.prm_study import Watched
from implicit_prm.reward_metrics import auc, auc_within_prompts
from implicit_prm.trainer import ImplicitPRMTrainer
from tenfold import Trial, TrialContext
from tenfold.data import get

RESAMPLES = 1000
SCORED_AT_ONCE = 16
REWARDS = ("with", "without", "untrained")
"""With the reference; without it; the likelihood before training."""


class RealConfig(BaseModel):
    """How many questions, each with its four solutions, and how SmolLM2 is trained on them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_questions: int = Field(gt=0)
    test_questions: int = Field(gt=0)
    beta: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0)
    epochs: int = Field(gt=0)


def real_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train on some questions, score the solutions of others: labels and rewards of steps, by question."""
    config = RealConfig(**trial.settings)
    model, tokenizer = load_prior()
    questions = read_questions(trial.seed)
    train = questions[: config.train_questions]
    test = questions[config.train_questions : config.train_questions + config.test_questions]
    flat = [row for question in test for row in question]
    found: dict[str, Any] = {"labels": [[float(row["label"]) for row in question] for question in test]}
    reference, _ = load_prior()
    ImplicitPRMTrainer(
        model=model,
        ref_model=reference,
        args=ImplicitPRMConfig(
            output_dir=str(context.checkpoint_dir),
            loss="ce",
            beta=config.beta,
            learning_rate=config.learning_rate,
            per_device_train_batch_size=config.batch_size,
            num_train_epochs=config.epochs,
            seed=trial.seed,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=[row for question in train for row in question],
        processing_class=tokenizer,
        callbacks=[Watched(context)],
    ).train()
    found["untrained"], found["without"] = (
        _rewards(ImplicitPRM(scored, tokenizer, None, config.beta), flat) for scored in (reference, model)
    )
    # Training began from the reference, whose passes are dear: the difference is the reward with it.
    pairs = zip(found["without"], found["untrained"], strict=True)
    found["with"] = [np.subtract(trained, bare).tolist() for trained, bare in pairs]
    return found


def load_prior() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct in float32, and its tokenizer."""
    folder = str(get(PRIOR))
    return load_model(folder, dtype=torch.float32).eval(), load_tokenizer(folder)


def read_questions(seed: int) -> list[list[dict[str, Any]]]:
    """The four labelled solutions of every question as rows of the trainer, the questions in random order."""
    file = get(SOLUTIONS) / "gsm8k_example_model_solutions.jsonl"
    questions = [ungrouped(row, str(number)) for number, row in enumerate(read_rows(file))]
    return [questions[place] for place in np.random.default_rng(seed).permutation(len(questions))]


def real_metrics(results: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, float]:
    """AUROC over held-out solutions with the ends of its 95% interval, and best-of-4 beside a random one.

    The interval is a bootstrap over questions, whose solutions stay together.
    """
    if not results:
        return {}
    (found,) = results["smollm2"].values()
    labels = np.array(found["labels"])
    metrics: dict[str, float] = {"smollm2_random4": 100 * float(labels.mean())}
    for name in REWARDS:
        scores = outcomes(found, name)
        key = "smollm2" if name == "with" else f"smollm2_{name}"
        low, high = interval(scores, labels)
        groups = np.repeat(np.arange(len(labels)), labels.shape[1])
        metrics |= {
            f"{key}_auroc": auc(scores.ravel(), labels.ravel()),
            f"{key}_auroc_low": low,
            f"{key}_auroc_high": high,
            f"{key}_auroc_within_questions": auc_within_prompts(scores.ravel(), labels.ravel(), groups),
        }
        for how in ("min", "sum"):
            chosen = chosen_right(outcomes(found, name, how), labels)
            metrics[f"{key}_best_of_4_{how}"] = 100 * float(chosen.mean())
    return metrics


def outcomes(found: Mapping[str, Any], name: str, how: str = "sum") -> npt.NDArray[np.float64]:
    """The scores of the solutions, [questions, 4], by an aggregation of their steps."""
    flat = aggregate_all([np.asarray(steps) for steps in found[name]], how)
    return flat.reshape(len(found["labels"]), -1)


def chosen_right(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[questions] the label of the solution with the highest score."""
    return np.take_along_axis(labels, scores.argmax(axis=1)[:, None], axis=1)[:, 0]


def interval(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the 95% interval of the AUROC."""
    random = np.random.default_rng(0)
    areas = []
    for _ in range(RESAMPLES):
        drawn = random.integers(len(labels), size=len(labels))
        areas.append(auc(scores[drawn].ravel(), labels[drawn].ravel()))
    low, high = np.nanquantile(areas, (0.025, 0.975))
    return float(low), float(high)


def _rewards(prm: ImplicitPRM, rows: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    scored = prm.score(rows, steps="line", batch_size=SCORED_AT_ONCE)
    return [[float(reward) for reward in one.step_rewards] for one in scored]
