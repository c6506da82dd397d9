"""One arm with one seed: a fitted policy, trained on, and judged on the same prompts every few steps."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field

from implicit_prime.config import PrimeConfig
from implicit_prime.core import pair_accuracy, step_auc
from implicit_prime.errors import NoPromptPassesError
from implicit_prime.online import OnlinePRM
from implicit_prime.reproduce.pretraining import pretrained_prm
from implicit_prime.responses import PromptGroup, Responses
from implicit_prime.trainer import PrimeTrainer
from implicit_prm import ImplicitPRM
from implicit_prm.offsets import decode_responses
from implicit_prm.reproduce.generation import ChainConfig, Drawn, drawn
from implicit_prm.steps import token_steps
from implicit_prm.tasks.base import ChainTask
from tenfold import Trial, TrialContext

TRAINED, JUDGED = 11, 12
"""Which random numbers of a seed prompts come from."""

JUDGING_SEED = 10_000
EXAMPLES = 8
MINI_BATCH = 64


class Arm(BaseModel):
    """What sets an arm apart: settings of `PrimeConfig`, and where its PRM begins.

    prm  "policy": as a copy of the policy; "offline": fitted to the policy's first rollouts; "pretrained":
         pre-trained on right single steps, and then fitted as the policy was
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    training: dict[str, Any] = Field(default_factory=dict)
    prm: Literal["policy", "offline", "pretrained"] = "policy"


class StudyConfig(BaseModel):
    """The task with its fitted policy, what all arms share, and how they are judged.

    The offline PRM is fitted to the chain's pool: every response once an epoch. A pretrained one has seen
    `pretraining_steps` batches of single steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain: ChainConfig
    training: dict[str, Any]
    train_prompts: int = Field(gt=0)
    test_prompts: int = Field(gt=0)
    test_responses: int = Field(ge=2)
    judge_every: int = Field(gt=0)
    offline_epochs: int = Field(gt=0)
    pretraining_steps: int = Field(default=2000, gt=0)

    def settings(self, arm: Arm, seed: int = 0, folder: str = "-") -> PrimeConfig:
        """The trainer's settings for an arm. Raises `PrimeError` for those that cannot be."""
        fixed = {
            "output_dir": folder,
            "seed": seed,
            "max_completion_length": self.chain.max_tokens,
            "use_cpu": True,
            "save_steps": 10**6,
        }
        return PrimeConfig.from_dict(self.training | arm.training | fixed)


def arm_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Train an arm; returns what every step measured, and what judging found.

    steps      by name, a value a step (None for NaN); fewer where no prompt passed the filter any more, and
               the arm ended there, judged once more
    judged     by name, a value each time: step, rollouts drawn so far, seconds of training so far, accuracy
               in %, and of the PRM pair_accuracy and step_auc (None without)
    examples   each time, rewards of the tokens of some responses, and which steps are right
    """
    study, arm = StudyConfig(**trial.settings["study"]), Arm(**trial.settings["arm"])
    found = drawn(study.chain, trial.seed)
    # The trainer's own screen would write over the bars of the run.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        args = study.settings(arm, trial.seed, folder)
        trainer = trainer_of(study, arm, args, found)
        judge = Judge(trainer, found.task, study.test_responses)
        steps: dict[str, list[float | None]] = {}
        judge(0.0)
        seconds = 0.0
        try:
            for metrics in trainer.steps():
                for name, value in metrics.items():
                    steps.setdefault(name, []).append(None if math.isnan(value) else value)
                seconds += metrics["time/step"]
                step = trainer.state.step
                context.progress(step, args.max_steps or step)
                if step % study.judge_every == 0 or step == args.max_steps:
                    judge(seconds)
                    context.log(step, accuracy=judge.found["accuracy"][-1])
        except NoPromptPassesError:
            if not steps:
                raise
            # The policy solves nothing any more (or everything): what an arm ends in, not a fault of the run.
            if judge.found["step"][-1] != trainer.state.step:
                judge(seconds)
        else:
            if (done := trainer.state.step) != args.max_steps:
                raise RuntimeError(f"{trial} was stopped after {done} steps of {args.max_steps}")
    return {"steps": steps, "judged": judge.found, "examples": judge.examples}


def trainer_of(study: StudyConfig, arm: Arm, args: PrimeConfig, found: Drawn) -> PrimeTrainer:
    """The arm's trainer; the reference answer to a prompt is the prompt, for the task judges by that."""
    task = found.task

    def verify(completions: Sequence[str], prompts: Sequence[str]) -> list[float]:
        return [
            float(task.grade(prompt, text).correct) for prompt, text in zip(prompts, completions, strict=True)
        ]

    return PrimeTrainer(
        found.generator(),
        prm_of(study, arm, args, found),
        args=args,
        train_dataset=rows_of(task.prompts(study.train_prompts, TRAINED)),
        eval_dataset={"judged": rows_of(task.test_prompts(study.test_prompts, JUDGED))},
        verifier=verify,
        processing_class=found.tokenizer,
    )


def rows_of(prompts: Sequence[str]) -> list[dict[str, str]]:
    """Rows as the trainer takes them."""
    return [{"prompt": prompt, "answer": prompt} for prompt in prompts]


def prm_of(study: StudyConfig, arm: Arm, args: PrimeConfig, found: Drawn) -> ImplicitPRM | None:
    """The PRM that the arm begins with; None: a copy of the policy."""
    if arm.prm == "offline":
        return offline_prm(study, args, found)
    if arm.prm == "pretrained":
        return pretrained_prm(study.chain, study.pretraining_steps, found, args.seed, args.beta)
    return None


def offline_prm(study: StudyConfig, args: PrimeConfig, found: Drawn) -> ImplicitPRM:
    """A PRM that is fitted by CE to what the policy wrote before it was trained on."""
    prm = ImplicitPRM(found.generator(), found.tokenizer, found.generator(), args.beta)
    settings = {"prm_update": "after", "prm_epochs": study.offline_epochs, "prm_loss": "ce"}
    fitting = PrimeConfig.from_dict(args.to_dict() | settings | {"mini_batch_size": MINI_BATCH})
    OnlinePRM(prm, fitting, Accelerator(cpu=True)).update(pool_of(found))
    return prm


def pool_of(found: Drawn) -> Responses:
    """All responses of the pool with their outcomes."""
    rows = found.pool(10**9, 10**9)
    prompts = found.tokenizer([row.prompt for row in rows]).input_ids
    groups = [
        PromptGroup(
            prompt=number,
            prompt_ids=tuple(ids),
            ids=[tuple(response) for response in row.ids],
            log_probs=[np.zeros(len(response), np.float32) for response in row.ids],
            truncated=[False] * len(row.ids),
            outcomes=np.array([float(grade.correct) for grade in row.grades]),
        )
        for number, (row, ids) in enumerate(zip(rows, prompts, strict=True))
    ]
    return Responses.from_groups(groups)


class Judge:
    """Draws responses of the policy as it is to the same prompts, and says how good they and the PRM are."""

    def __init__(self, trainer: PrimeTrainer, task: ChainTask, responses: int) -> None:
        self.trainer = trainer
        self.task = task
        self.responses = responses
        self.found: dict[str, list[Any]] = {}
        self.examples: list[list[dict[str, Any]]] = []

    def __call__(self, seconds: float) -> None:
        """Judge now, after so many seconds of training."""
        trainer = self.trainer
        rows = trainer.eval_rows["judged"]
        trainer.engine.sync_weights(trainer.model)
        seed = (trainer.args.seed, JUDGING_SEED)
        groups = trainer.collector.draw(rows, range(len(rows)), seed, self.responses, 1.0)
        trainer.engine.rest()
        told: dict[str, float | None] = {
            "step": trainer.state.step,
            "rollouts": trainer.state.responses,
            "seconds": seconds,
            "accuracy": 100 * float(np.mean([group.outcomes for group in groups])),
        }
        told |= self._of_prm(Responses.from_groups(groups), groups)
        for name, value in told.items():
            self.found.setdefault(name, []).append(value)
        trainer.clock.read()  # the next step shall not count the time of this

    def _of_prm(self, batch: Responses, groups: Sequence[PromptGroup]) -> dict[str, float | None]:
        online = self.trainer.online
        if online is None:
            return {"pair_accuracy": None, "step_auc": None}
        process = online.score(batch)
        prompts = [self.trainer.eval_rows["judged"][group.prompt].answer for group in groups]
        labels, ends = self._truth([ids for group in groups for ids in group.ids], prompts)
        self.examples.append(
            [
                {"rewards": process[row, batch.mask[row]].tolist(), "right": labels[row]}
                for row in range(0, min(EXAMPLES * self.responses, len(batch)), self.responses)
            ]
        )
        known = [row for row, of_row in enumerate(ends) if of_row]
        area = step_auc(process[known], [ends[row] for row in known], [labels[row] for row in known])
        accuracy = pair_accuracy(process.sum(1), batch.outcomes, batch.groups)
        return {"pair_accuracy": _number(accuracy), "step_auc": _number(area)}

    def _truth(
        self, responses: Sequence[Sequence[int]], prompts: Sequence[str]
    ) -> tuple[list[list[bool]], list[list[int]]]:
        """Of every response, which steps are right, and the last token of each."""
        labels, ends = [], []
        for place, (text, offsets) in enumerate(decode_responses(responses, self.trainer.processing_class)):
            right = list(self.task.grade(prompts[place // self.responses], text).steps)
            places = token_steps(text, offsets, self.task.splitter)[1]
            count = min(len(right), len(places))  # a response without a word has no step
            labels.append(right[:count])
            ends.append(places[:count])
        return labels, ends


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
