"""Pre-training by `transformers.Trainer`: one config, one function, one curve."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from transformers import TrainerCallback, TrainingArguments
from transformers.utils import logging as transformers_logging

from lmlab.batching import Blocks, block_length
from lmlab.errors import SettingsError
from lmlab.evaluation import perplexity
from lmlab.schedule import Schedule, learning_rate_factor
from lmlab.trainer import (
    PROGRESS_FILE,
    CheckpointError,
    LaboratoryTrainer,
    NonFiniteLossError,
    ParameterGroups,
    checkpoints,
)

__all__ = ["CheckpointError", "NonFiniteLossError", "TrainingConfig", "TrainingResult", "train"]


class TrainingConfig(BaseModel):
    """How a model is trained. Unknown keys and impossible values are errors that name the key.

    `batch_size` counts sequences in one optimizer step, over all processes and accumulation steps: the same
    config gives the same training on any number of devices. `seed` fixes dropout; `data_seed` the order of
    the blocks. `weight_decay` acts on matrices and embeddings. `max_grad_norm` 0 does not clip.
    `eval_every` and `checkpoint_every` are in steps, 0 is never (the last step is always in the curve).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Schedule = "cosine"
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    seed: int = Field(default=0, ge=0)
    data_seed: int = Field(default=0, ge=0)
    eval_every: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_accumulation_steps: int = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _possible(self) -> TrainingConfig:
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        return self


@dataclass(frozen=True)
class TrainingResult:
    """What a training run gave.

    `curve` has an entry at each evaluation and at the last step: `step`, `tokens` (seen so far), `loss`
    (mean training loss in nats a token since the entry before), `grad_norm` (of that step, before clipping),
    `learning_rate`, `seconds` (spent in training steps so far, without evaluation and checkpoints), and
    with validation data `valid_loss`, `valid_ppl` and, where the data know their bytes,
    `valid_bits_per_byte`.
    """

    curve: list[dict[str, float]]
    seconds: float
    tokens_per_second: float


@dataclass
class _Progress:
    """The state of a run beside weights and optimizer; a checkpoint carries it as JSON."""

    identity: dict[str, Any]
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    step_of_last_entry: int = 0
    loss_sum: float = 0.0


def train(
    model: nn.Module,
    train_data: Blocks,
    config: TrainingConfig,
    *,
    valid_data: Blocks | None = None,
    directory: str | Path | None = None,
    on_evaluate: Callable[[int, dict[str, float]], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    resume: bool = True,
    optimizer_groups: ParameterGroups | None = None,
    save_model_to: str | Path | None = None,
) -> TrainingResult:
    """Train `model` in place on next-token prediction.

    `train_data` is a data set of blocks of equal length (or a tensor (blocks, length)); their order is a
    function of `config.data_seed` alone. `directory` holds the checkpoints; with `resume` the newest whole
    one is continued, on the CPU bit for bit; without it those that are there are removed.
    `on_evaluate(step, metrics)` gets each entry of the curve, `on_step(step)` is called after each optimizer
    step, `on_progress(done, total)` likewise.
    `optimizer_groups` are AdamW parameter groups (or a function of the model that returns them) with their
    own `lr` or `weight_decay`; the schedule multiplies each group's rate. `save_model_to` writes the final
    weights with `save_pretrained` (the way to get them out of a sharded run).

    Raises `NonFiniteLossError` when loss or gradient is no finite number, `CheckpointError` (a `ValueError`)
    when the checkpoint belongs to another run, `ValueError` for data or a config that cannot be trained on.
    """
    if config.checkpoint_every and directory is None:
        raise ValueError("checkpoint_every needs a directory to write the checkpoints to")
    length = block_length(train_data)
    identity = {"config": config.model_dump(mode="json"), "blocks": len(train_data), "block_length": length}
    with _folder(directory) as folder, _quiet():
        args = _arguments(config, folder)
        found = checkpoints(folder) if resume else []
        progress = _restore(found[-1], identity) if found else _Progress(identity)
        trainer = LaboratoryTrainer(
            model,
            args,
            train_data,
            sequences=config.max_steps * config.batch_size,
            data_seed=config.data_seed,
            optimizer_groups=optimizer_groups,
            factor=learning_rate_factor(
                config.schedule, config.max_steps, config.warmup_steps, config.min_lr_ratio
            ),
            progress=lambda: asdict(progress),
        )
        observer = _Observer(trainer, config, progress, length, valid_data, on_evaluate, on_step, on_progress)
        trainer.add_callback(observer)
        if not resume:
            trainer.remove_checkpoints()  # or the next call would go on from them
        trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
        if save_model_to is not None:
            trainer.save_weights(str(save_model_to))
    tokens = config.max_steps * config.batch_size * length
    return TrainingResult(progress.curve, progress.seconds, tokens / progress.seconds)


class _Observer(TrainerCallback):
    """Measures, evaluates and asks for checkpoints at the end of steps."""

    def __init__(
        self,
        trainer: LaboratoryTrainer,
        config: TrainingConfig,
        progress: _Progress,
        length: int,
        valid_data: Blocks | None,
        on_evaluate: Callable[[int, dict[str, float]], None] | None,
        on_step: Callable[[int], None] | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.trainer = trainer
        self.config = config
        self.progress = progress
        self.length = length
        self.valid_data = valid_data
        # Not under the name on_evaluate: that is an event of the Trainer's own.
        self.report_evaluation = on_evaluate
        self.report_step = on_step
        self.report_progress = on_progress
        self.resumed_at = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.loss_sum.fill_(self.progress.loss_sum)
        self.resumed_at = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, last = state.global_step, self.config.max_steps
        evaluate = _is_due(step, self.config.eval_every) or step == last
        control.should_save = _is_due(step, self.config.checkpoint_every) and step < last
        if evaluate or control.should_save:
            self._stop_the_clock()
        if evaluate:
            self._evaluate(step)
        if self.report_step:
            self.report_step(step)
        if self.report_progress:
            self.report_progress(step, last)
        if control.should_save:
            self.progress.loss_sum = self.trainer.mean_loss_sum()
        if evaluate and not control.should_save:
            self.resumed_at = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.resumed_at = time.perf_counter()

    def _stop_the_clock(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.progress.seconds += time.perf_counter() - self.resumed_at

    def _evaluate(self, step: int) -> None:
        trainer, progress = self.trainer, self.progress
        entry = {
            "step": step,
            "tokens": step * self.config.batch_size * self.length,
            "loss": trainer.mean_loss_sum() / (step - progress.step_of_last_entry),
            "grad_norm": float(trainer.grad_norm),
            "learning_rate": trainer.learning_rate,
            "seconds": progress.seconds,
        }
        trainer.loss_sum.zero_()
        progress.step_of_last_entry = step
        if self.valid_data is not None:
            valid = perplexity(
                cast(nn.Module, trainer.model), self.valid_data, trainer.args.per_device_train_batch_size
            )
            entry |= {"valid_loss": valid.loss, "valid_ppl": valid.ppl}
            if valid.bits_per_byte is not None:
                entry["valid_bits_per_byte"] = valid.bits_per_byte
        progress.curve.append(entry)
        if self.report_evaluation:
            self.report_evaluation(step, dict(entry))


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _restore(checkpoint: Path, identity: dict[str, Any]) -> _Progress:
    progress = _Progress(**json.loads((checkpoint / PROGRESS_FILE).read_text()))
    if progress.identity != identity:
        was, now = _flat(progress.identity), _flat(identity)
        changed = [
            f"{key} was {was.get(key)}, is {now.get(key)}" for key in now if was.get(key) != now.get(key)
        ]
        raise CheckpointError(
            f"{checkpoint} belongs to another run: {'; '.join(changed)}. "
            "Remove it, use another directory, or train with resume=False."
        )
    return progress


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    return {**identity["config"], **{key: value for key, value in identity.items() if key != "config"}}


@contextmanager
def _folder(directory: str | Path | None) -> Iterator[Path]:
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="lmlab-") as temporary:
            yield Path(temporary)
    else:
        Path(directory).mkdir(parents=True, exist_ok=True)
        yield Path(directory)


@contextmanager
def _quiet() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _arguments(config: TrainingConfig, folder: Path) -> TrainingArguments:
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        adam_beta1=config.betas[0],
        adam_beta2=config.betas[1],
        adam_epsilon=config.eps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        seed=config.seed,
        bf16=config.precision == "bf16",
        save_strategy="no",  # the observer asks for checkpoints
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it would hide what NonFiniteLossError reports
        average_tokens_across_devices=False,  # every process has the same number of tokens
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        use_cpu=not torch.accelerator.is_available(),
        dataloader_pin_memory=torch.accelerator.is_available(),
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
    )
    processes = args.world_size
    args._n_gpu = min(1, args.n_gpu)  # never DataParallel: more devices means more processes
    share = config.batch_size // config.gradient_accumulation_steps
    if share % processes:
        raise SettingsError(
            f"batch_size {config.batch_size} / gradient_accumulation_steps "
            f"{config.gradient_accumulation_steps} is not a multiple of the {processes} processes"
        )
    args.per_device_train_batch_size = share // processes
    return args
