"""`transformers.Trainer`, made quiet, exactly repeatable and safe to interrupt.

Everything that scales (accelerate, FSDP, mixed precision, accumulation) is the Trainer's. What is changed:
the order of the blocks (`lmlab.batching`), the optimizer's groups, the schedule, a stop at the first
non-finite step, and checkpoints that are either whole or not there.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lmlab.batching import BatchedBlocks, BlockOrder, Blocks
from lmlab.errors import SettingsError
from lmlab.sharding import shard_without_accelerator
from tenfold.errors import TenfoldError

ParameterGroups = list[dict[str, Any]] | Callable[[nn.Module], list[dict[str, Any]]]
PROGRESS_FILE = "lmlab_progress.json"


class NonFiniteLossError(TenfoldError, RuntimeError):
    """The loss or the gradient is no longer a finite number; training stopped before that step's update.

    Attributes: `step` (1 is the first), `learning_rate`, `loss`, `grad_norm` and `checkpoint`, the folder of
    the last good checkpoint or None.
    """

    def __init__(
        self, step: int, learning_rate: float, loss: float, grad_norm: float, checkpoint: Path | None
    ) -> None:
        self.step = step
        self.learning_rate = learning_rate
        self.loss = loss
        self.grad_norm = grad_norm
        self.checkpoint = checkpoint
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "there is no checkpoint"
        super().__init__(
            f"training diverged at step {step}: loss {loss:g}, gradient norm {grad_norm:g}, "
            f"learning rate {learning_rate:g}; {kept}. "
            "A lower learning rate, a longer warm-up or a smaller max_grad_norm helps."
        )


class CheckpointError(SettingsError):
    """A checkpoint that cannot continue this run: it was written by another config, data set or model."""


def checkpoints(directory: Path) -> list[Path]:
    """The whole checkpoints in `directory`, oldest first. One that was being written is not among them."""
    found = [path for path in directory.glob("checkpoint-*") if (path / PROGRESS_FILE).is_file()]
    return sorted(found, key=lambda path: int(path.name.rsplit("-", 1)[1]))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and embeddings decay, vectors (norms, biases) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class LaboratoryTrainer(Trainer):
    """See the module. `progress()` is the run's own state, which each checkpoint carries as JSON."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        train_data: Blocks,
        *,
        sequences: int,
        data_seed: int,
        optimizer_groups: ParameterGroups | None,
        factor: Callable[[int], float],
        progress: Callable[[], dict[str, Any]],
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=BatchedBlocks(train_data),
            data_collator=lambda tokens: {"input_ids": tokens, "labels": tokens},
        )
        self.remove_callback(PrinterCallback)
        self.folder = Path(str(args.output_dir))
        self.order = BlockOrder(len(train_data), sequences, data_seed)
        self.optimizer_groups = optimizer_groups
        self.factor = factor
        self.progress = progress
        self.loss_sum = torch.zeros((), device=args.device)
        self.step_loss = torch.zeros((), device=args.device)
        self.grad_norm = torch.zeros((), device=args.device)
        self.learning_rate = 0.0
        self._saving_checkpoint = False

    def create_accelerator_and_postprocess(self) -> None:
        """The Trainer's own, and FSDP where accelerate leaves it out."""
        super().create_accelerator_and_postprocess()
        shard_without_accelerator(self.accelerator)
        self.is_fsdp_enabled = getattr(self.accelerator.state, "fsdp_plugin", None) is not None

    # ---- the same blocks for everyone

    def _get_train_sampler(self, train_dataset: Any = None) -> BlockOrder:
        return self.order

    # ---- the optimizer

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the caller's groups, or over `decay_groups`."""
        if self.optimizer is None:
            model = cast(nn.Module, self.model if model is None else model)
            groups = self.optimizer_groups
            if groups is None:
                groups = decay_groups(model, self.args.weight_decay)
            elif callable(groups):
                groups = groups(model)
            self.optimizer = torch.optim.AdamW(
                groups,
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                weight_decay=self.args.weight_decay,
                fused=True,
            )
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Each group's own learning rate times the schedule's factor."""
        if self.lr_scheduler is None:
            optimizer = cast(torch.optim.Optimizer, optimizer or self.optimizer)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- a step

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The Trainer's step; the loss of the step's micro-batches is added up in `step_loss`."""
        loss = super().training_step(*args, **kwargs)
        self.step_loss = self.step_loss + loss
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.grad_norm = torch.as_tensor(grad_norm)
        self.learning_rate = self._get_learning_rate()
        self._stop_when_not_finite()
        self.loss_sum += self.step_loss
        self.step_loss = torch.zeros_like(self.step_loss)
        return grad_norm

    def mean_loss_sum(self) -> float:
        """The losses of the steps since `loss_sum` was last zeroed, added up; the mean over processes."""
        return float(self.accelerator.reduce(self.loss_sum, reduction="mean"))

    def _stop_when_not_finite(self) -> None:
        # One number to the host a step: the sum is finite exactly when both are (neither can be -inf).
        if math.isfinite(float(self.step_loss + self.grad_norm)):
            return
        kept = checkpoints(self.folder)
        raise NonFiniteLossError(
            step=self.state.global_step + 1,
            learning_rate=self.learning_rate,
            loss=float(self.step_loss),
            grad_norm=float(self.grad_norm),
            checkpoint=kept[-1] if kept else None,
        )

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer would walk over all modules at each step (see `lmlab.accounting`)."""
        return 0

    # ---- checkpoints

    def remove_checkpoints(self) -> None:
        """Forget what an earlier run left in the folder; every process has to call it."""
        if self.args.should_save:
            for old in [*checkpoints(self.folder), self.folder / "unfinished"]:
                shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _get_output_dir(self, trial: Any) -> str:
        # Checkpoints are written beside the good ones and moved into place when whole.
        return str(self.folder / "unfinished" if self._saving_checkpoint else self.folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        output = self.folder
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(output / "unfinished", ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saving_checkpoint = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = output / "unfinished" / name
            (folder / PROGRESS_FILE).write_text(json.dumps(self.progress()))
            shutil.rmtree(output / name, ignore_errors=True)
            folder.rename(output / name)
            shutil.rmtree(output / "unfinished")
            for older in checkpoints(output)[:-1]:
                shutil.rmtree(older)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self._saving_checkpoint:
            super()._save(output_dir, state_dict=state_dict)
        elif not self.is_fsdp_enabled:  # else the sharded weights are saved with the optimizer
            # The state as it is in memory. `save_pretrained` may rename or split weights, and the Trainer's
            # resume would not undo that.
            folder = Path(str(output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.accelerator.unwrap_model(self.model).state_dict(), folder / "pytorch_model.bin")

    def save_weights(self, folder: str) -> None:
        """The final weights by `save_pretrained`, gathered on process 0 when they are sharded."""
        state_dict = self.accelerator.get_state_dict(self.model)
        model = self.accelerator.unwrap_model(self.model)
        # Gathering gives tied weights a copy each; as in `save_pretrained`, the first of their names stays.
        every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        for name in every - {name for name, _ in model.named_parameters()}:
            state_dict.pop(name, None)
        if self.args.should_save:
            save_given(model, folder, state_dict)
        self.accelerator.wait_for_everyone()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        wrong = [*load_result.missing_keys, *load_result.unexpected_keys]
        if wrong:
            raise CheckpointError(
                f"the checkpoint in {self.folder} is of another model: {len(wrong)} weights do not "
                f"match, the first is {wrong[0]!r}. Remove it, or train with resume=False."
            )


def save_given(model: PreTrainedModel, folder: str, state_dict: dict[str, torch.Tensor]) -> None:
    """`model.save_pretrained(folder, state_dict=state_dict)`, also for a model with a quantiser (as LPA's).

    For such a model transformers drops what it is given and asks the quantiser, which has the shards at most.
    """
    quantizer: Any = getattr(model, "hf_quantizer", None)
    if quantizer is None:
        model.save_pretrained(folder, state_dict=state_dict)
        return
    _, metadata = quantizer.get_state_dict_and_metadata(model)
    quantizer.get_state_dict_and_metadata = lambda _: (state_dict, metadata)
    try:
        model.save_pretrained(folder)
    finally:
        del quantizer.get_state_dict_and_metadata
