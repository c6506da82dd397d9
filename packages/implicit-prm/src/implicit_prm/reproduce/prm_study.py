"""C1 to C7: implicit reward models trained on labels of responses, and the likelihood without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from transformers import LlamaForCausalLM, TrainerCallback

from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.flops import TokenCounts, measure_flops, reading_counts, writing_counts
from implicit_prm.model import ImplicitPRM
from implicit_prm.reproduce.evaluation import Rewards, judged, oracle_curve, vote_curve
from implicit_prm.reproduce.generation import ChainConfig, Drawn, Responses, drawn
from implicit_prm.trainer import ImplicitPRMTrainer
from tenfold import Trial, TrialContext

SCORED_AT_ONCE = 512
EXAMPLES = 14
UNTRAINED = "untrained"
MAIN = "ce-1000x8"
"""The arm that the claims are about, unless they say otherwise."""


class RewardConfig(BaseModel):
    """How reward models are trained, whatever their loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    beta: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0)


class Arm(BaseModel):
    """One reward model: its loss, and on how many responses to how many prompts it is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: Literal["ce", "dpo", "nca", "kto"]
    prompts: int = Field(gt=0)
    responses: int = Field(gt=0)
    epochs: int = Field(gt=0)
    balance: Literal["none", "dataset", "instruction"] = "none"
    every_seed: bool = True

    @property
    def name(self) -> str:
        """For example ce-1000x8."""
        balanced = "" if self.balance == "none" else "-balanced"
        return f"{self.loss}{balanced}-{self.prompts}x{self.responses}"


def reward_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train an arm, or none ("untrained"), and judge its rewards at every temperature.

    Returns, by temperature, `with` and `without` the reference (see `judged`), `majority` and `oracle`;
    some `examples` of the first; and for CE the `flops`. The untrained model has only rewards without.
    """
    chain, reward = ChainConfig(**trial.settings["chain"]), RewardConfig(**trial.settings["reward"])
    found = drawn(chain, trial.seed)
    generator, model = found.generator(), found.generator()
    result: dict[str, Any] = {"temperatures": {}}
    if trial.arm != UNTRAINED:
        arm = Arm(**trial.settings["arm"])
        rows = found.pool(arm.prompts, arm.responses)
        model = trained(model, generator, found, rows, arm, reward, trial.seed, context)
        if arm.loss == "ce":
            result["flops"] = flops(model, found, rows, arm.epochs)
    for temperature in chain.temperatures:
        test = found.judged(temperature)
        references = {"without": None} if trial.arm == UNTRAINED else {"with": generator, "without": None}
        rewards = {
            name: step_rewards(ImplicitPRM(model, found.tokenizer, ref, reward.beta), found, test)
            for name, ref in references.items()
        }
        result["temperatures"][f"{temperature:g}"] = {
            "majority": vote_curve(found.task, test),
            "oracle": oracle_curve(test),
            **{name: judged(found.task, test, of_all) for name, of_all in rewards.items()},
        }
        if "examples" not in result and "with" in rewards:
            result["examples"] = examples(test, rewards["with"])
    return result


def trained(
    model: LlamaForCausalLM,
    reference: LlamaForCausalLM,
    found: Drawn,
    rows: Sequence[Responses],
    arm: Arm,
    reward: RewardConfig,
    seed: int,
    context: TrialContext,
) -> LlamaForCausalLM:
    """The model, trained on the labels of the responses' final answers."""
    config = ImplicitPRMConfig(
        output_dir=str(context.checkpoint_dir),
        loss=arm.loss,
        balance=arm.balance,
        beta=reward.beta,
        learning_rate=reward.learning_rate,
        per_device_train_batch_size=reward.batch_size,
        num_train_epochs=arm.epochs,
        precompute_ref_log_probs=True,
        seed=seed,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = ImplicitPRMTrainer(
        model=model,
        ref_model=reference,
        args=config,
        train_dataset=training_rows(found, rows),
        processing_class=found.tokenizer,
        callbacks=[Watched(context)],
    )
    trainer.train()
    return model.eval()


def training_rows(found: Drawn, rows: Sequence[Responses]) -> list[dict[str, Any]]:
    """Unpaired rows of the trainer, already tokenised."""
    prompts = found.tokenizer([row.prompt for row in rows]).input_ids
    return [
        {"prompt_ids": prompt, "completion_ids": ids, "label": float(grade.correct)}
        for prompt, row in zip(prompts, rows, strict=True)
        for ids, grade in zip(row.ids, row.grades, strict=True)
    ]


def flops(model: LlamaForCausalLM, found: Drawn, rows: Sequence[Responses], epochs: int) -> dict[str, int]:
    """FLOPs of writing the responses, of reading them once with the reference, and of training on them."""
    prompts = found.tokenizer([row.prompt for row in rows]).input_ids
    read = [len(prompt) + len(ids) for prompt, row in zip(prompts, rows, strict=True) for ids in row.ids]
    return {
        "responses": measure_flops(model, written(found, rows)),
        "reference": measure_flops(model, reading_counts(read)),
        "training": measure_flops(model, reading_counts(read) * epochs, training=True),
    }


def written(found: Drawn, rows: Sequence[Responses]) -> TokenCounts:
    """What the generator read and wrote for these responses."""
    prompts = found.tokenizer([row.prompt for row in rows]).input_ids
    counts = TokenCounts()
    for prompt, row in zip(prompts, rows, strict=True):
        counts += writing_counts(len(prompt), map(len, row.ids))
    return counts


def step_rewards(prm: ImplicitPRM, found: Drawn, rows: Sequence[Responses]) -> Rewards:
    """The rewards of the steps of every response to every prompt."""
    flat = [{"prompt": row.prompt, "completion_ids": ids} for row in rows for ids in row.ids]
    scored = iter(prm.score(flat, steps=found.task.splitter, batch_size=SCORED_AT_ONCE))
    return [[next(scored).step_rewards for _ in row.ids] for row in rows]


def examples(rows: Sequence[Responses], rewards: Rewards) -> list[dict[str, Any]]:
    """A response to each of the first prompts, for the heat map: mostly the first wrong one."""
    chosen: list[dict[str, Any]] = []
    for number, (row, of_prompt) in enumerate(zip(rows[:EXAMPLES], rewards, strict=False)):
        wanted = number % 4 == 3
        right = [grade.correct for grade in row.grades]
        place = right.index(wanted) if wanted in right else 0
        chosen.append(
            {
                "prompt": row.prompt,
                "completion": row.completions[place],
                "rewards": np.asarray(of_prompt[place], float).tolist(),
                "first_error": row.grades[place].first_error,
                "correct": row.grades[place].correct,
            }
        )
    return chosen


class Watched(TrainerCallback):
    """Tells the run how far the training is."""

    def __init__(self, context: TrialContext) -> None:
        self.context = context

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer after each step."""
        self.context.progress(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Called by the Trainer when it logs; the curve of the loss and of the AUC is kept."""
        kept = {name.rpartition("/")[2]: value for name, value in (logs or {}).items() if name in CURVES}
        if kept:
            self.context.log(state.global_step, **kept)


CURVES = ("loss", "rewards/auc", "rewards/accuracies")
