"""Train an implicit PRM: `transformers.Trainer` with the losses of section 2.2.

What scales (accelerate, FSDP2, mixed precision, accumulation, checkpoints) is the Trainer's. Here are the
data set, the reference, the loss, what is measured, and which checkpoint a run goes on from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction, PreTrainedModel, Trainer

from implicit_prm.backends.hf import without_dropout
from implicit_prm.checkpoints import last_checkpoint
from implicit_prm.collation import Batch, RewardDataset
from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning, MissingExtraError
from implicit_prm.functional import ImplicitRewards, ce_loss, dpo_loss, implicit_rewards, kto_loss, nca_loss
from implicit_prm.functional import step_loss as loss_of_steps
from implicit_prm.logprobs import causal_log_probs, check_packing
from implicit_prm.pretrained import max_positions
from implicit_prm.reference import Reference
from implicit_prm.reward_metrics import auc_within_prompts, reward_metrics
from implicit_prm.training_data import Row, reward_dataset

try:
    from accelerate.utils import gather_object
except ImportError as error:
    raise MissingExtraError("training needs accelerate: pip install 'implicit-prm[train]'") from error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, TrainerCallback
    from transformers.trainer_utils import TrainOutput

NO_STEP = 0  # the label of a step that a response does not have


class ImplicitPRMTrainer(Trainer):
    """A trainer of causal language models as implicit PRMs.

    model             a causal LM, or a PEFT model of one
    ref_model         the reference; None takes a frozen copy of `model` as it is now, or with PEFT the base
                      model by switching the adapter off, also of an adapter that was trained before: then
                      rewards do not begin at 0
    args              `ImplicitPRMConfig`
    train_dataset     rows in TRL's formats (see `implicit_prm.training_data`): a list, a `datasets.Dataset`,
    eval_dataset      any iterable of mappings; of the latter also a dictionary of several
    processing_class  the tokenizer; not needed for rows that are tokenised

    Logged are TRL's `rewards/chosen`, `rewards/rejected`, `rewards/margins` and `rewards/accuracies`, and
    `rewards/auc`; `evaluate` adds `rewards/auc_within_prompts`. Batch sizes count examples: responses, or
    pairs of them.

    Raises `ImplicitPRMError` for data, a model or settings that do not fit, and for a model to train whose
    weights are all frozen; while training for log-probs that are no numbers, naming the rows.
    """

    loss_is_scaled_for_ga = False  # losses are means over a micro-batch
    args: ImplicitPRMConfig

    def __init__(
        self,
        model: PreTrainedModel | nn.Module,
        ref_model: PreTrainedModel | nn.Module | None = None,
        *,
        args: ImplicitPRMConfig,
        train_dataset: Iterable[Row] | None = None,
        eval_dataset: Iterable[Row] | dict[str, Iterable[Row]] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        _check_model(model, ref_model, args)
        if train_dataset is not None:
            _check_trainable(model)
        if args.disable_dropout:
            without_dropout(model)
        self.processing_class = processing_class
        self.args = args
        args._n_gpu = min(1, args.n_gpu)  # never DataParallel: more devices means more processes
        if isinstance(eval_dataset, dict):
            evaluated: Any = {name: self._prepared(rows) for name, rows in eval_dataset.items()}
        else:
            evaluated = None if eval_dataset is None else self._prepared(eval_dataset)
        super().__init__(
            model=model,
            args=args,
            data_collator=cast(Any, lambda batch: batch),  # the data set's batches are whole
            train_dataset=None if train_dataset is None else cast(Any, self._prepared(train_dataset)),
            eval_dataset=evaluated,
            processing_class=processing_class,
            compute_metrics=_evaluation_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        for dataset in self._datasets():
            _check_sequences(dataset, model, args)
        if not self.is_fsdp_enabled or args.mixed_precision == "no":  # else FSDP2 makes them float32
            _warn_of_low_precision(model)
        self.reference = Reference(model, ref_model, args, self.accelerator)
        # What FSDP and DeepSpeed have not wrapped yet cannot be asked: then the first batch does it.
        wrapped_later = self.is_fsdp_enabled or self.is_deepspeed_enabled
        self._packing_unchecked = args.padding_free and wrapped_later
        if args.padding_free:
            self._check_packing([self.reference.scorer] if wrapped_later else [model, ref_model])
        self.reference.precompute(self._datasets())
        self._weights = sum(parameter.numel() for parameter in model.parameters())
        self._seen: list[tuple[Tensor, Tensor]] = []

    # ---- data

    def _prepared(self, rows: Iterable[Row]) -> RewardDataset:
        if isinstance(rows, RewardDataset):
            return rows
        return reward_dataset(rows, cast(Any, self.processing_class), self.args)

    def _datasets(self) -> list[RewardDataset]:
        evaluated = self.eval_dataset
        several = list(evaluated.values()) if isinstance(evaluated, dict) else [evaluated]
        return [
            cast(RewardDataset, dataset) for dataset in [self.train_dataset, *several] if dataset is not None
        ]

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """`Trainer.evaluate`; rows that are given here are prepared as those of `__init__`."""
        if eval_dataset is not None and not isinstance(eval_dataset, (str, dict)):
            eval_dataset = self._prepared(eval_dataset)
            _check_sequences(eval_dataset, cast(nn.Module, self.model), self.args)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def _check_packing(self, models: list[nn.Module | None]) -> None:
        """On the device and in the dtype of training: FlashAttention needs a GPU and 16 bits."""
        with self.reference.precision():
            for model in models:
                if model is not None:
                    check_packing(model)

    # ---- the loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a batch (section 2.2); with `return_outputs` also {"scores", "labels"} of it."""
        loss, scores, labels = self._loss(model, inputs)
        if model.training:
            self._seen.append((scores.detach(), labels))  # on the device: copied when it is logged
        return (loss, {"scores": scores, "labels": labels}) if return_outputs else loss

    def _loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, rewards ([B], of pairs [B, 2], of steps [B, S]) and their labels ([B], of steps [B, S])."""
        args = self.args
        if args.loss == "kto":
            matched, unmatched = _halves(batch)
            z0 = self._divergence(model, unmatched)
            outcome, label = self._rewards(model, matched).outcome, matched["label"]
            weights = args.desirable_weight, args.undesirable_weight
            return kto_loss(outcome, label, z0, args.beta, *weights), outcome, label
        rewards = self._rewards(model, batch)
        if args.loss == "step":
            return self._step_loss(rewards.token_rewards, batch)
        outcome, label = rewards.outcome, batch["label"]
        if args.loss == "ce":
            weight = label * args.desirable_weight + (1 - label) * args.undesirable_weight
            return ce_loss(outcome, label, weight), outcome, label
        chosen, rejected = outcome.chunk(2)
        pair_loss = dpo_loss if args.loss == "dpo" else nca_loss
        return pair_loss(chosen, rejected), torch.stack([chosen, rejected], dim=1), label.chunk(2)[0]

    def _step_loss(self, token_rewards: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        label = batch["step_label"]
        # Outside the completion the reward is 0, so that it does not matter to which step it is added.
        steps = token_rewards.new_zeros(label.shape).scatter_add(1, batch["step_index"], token_rewards)
        known = label != NO_STEP
        return loss_of_steps(steps[known], label[known], self.args.step_form), steps, label

    def _rewards(self, model: nn.Module, batch: Batch) -> ImplicitRewards:
        if self._packing_unchecked:
            check_packing(model)
            self._packing_unchecked = False
        ref = self.reference.log_probs(model, batch)
        ids, padding, completion = (batch[key] for key in ("input_ids", "attention_mask", "completion_mask"))
        logps = causal_log_probs(
            model, ids, padding, self.args.chunk_size, completion, self.args.padding_free
        )
        rewards = implicit_rewards(logps, ref, completion, self.args.beta)
        wrong = ~rewards.outcome.isfinite()
        if wrong.any():
            raise ImplicitPRMError(
                f"after {self.state.global_step} steps the rewards of rows "
                f"{self._names(model, batch['sequence'][wrong])} are not finite: training has diverged (try "
                "a lower learning rate), or a model's log-probs of them are no numbers"
            )
        return rewards

    @torch.no_grad()
    def _divergence(self, model: nn.Module, unmatched: Batch) -> Tensor:
        """z0 of KTO: the mean log-ratio of prompts with other prompts' responses, over all processes."""
        mean = self._rewards(model, unmatched).outcome.mean() / self.args.beta
        return cast(Tensor, self.accelerator.reduce(mean, reduction="mean")).clamp(min=0)

    def _names(self, model: nn.Module, sequences: Tensor) -> str:
        loader = (
            self.callback_handler.train_dataloader
            if model.training
            else self.callback_handler.eval_dataloader
        )
        ids = [cast(Any, loader).dataset.store.ids[place] for place in sequences.tolist()]
        return ", ".join(repr(name) for name in ids[:3]) + (
            f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        )

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor | None, Tensor | None, Any]:
        """Loss, rewards, and (labels, prompts) of a batch, without gradients."""
        inputs = cast(Batch, self._prepare_inputs(inputs))
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, scores, labels = self._loss(model, inputs)
        if prediction_loss_only:
            return loss, None, None
        return loss, scores, (labels, inputs["group"][: len(labels)])

    # ---- what is logged

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """`Trainer.log`; where it logs the loss, also the rewards of the steps since it last did."""
        if "loss" in logs and self._seen:
            every = gather_object([_known(scores.cpu(), labels.cpu()) for scores, labels in self._seen])
            scores, labels = (np.concatenate(part) for part in zip(*every, strict=True))
            logs |= reward_metrics(scores, labels)
            self._seen.clear()
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: Batch) -> int:
        """6 FLOPs a weight and token, and 2 for a reference that runs; weights are counted once."""
        passes = 6 + (2 if "ref_log_probs" not in inputs and self.args.reference != "none" else 0)
        return passes * self._weights * inputs["input_ids"].numel()

    # ---- going on

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """`Trainer.train`; True goes on from the newest whole checkpoint, or starts where there is none."""
        self._seen.clear()
        if resume_from_checkpoint is True:
            found = last_checkpoint(str(self.args.output_dir), self.args.world_size)
            resume_from_checkpoint = None if found is None else str(found)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """`Trainer.save_model`, also of sharded weights, which it would leave to the checkpoints alone."""
        kind = str(self.accelerator.state.fsdp_plugin.state_dict_type) if self.is_fsdp_enabled else ""
        if _internal_call or "SHARDED" not in kind:
            super().save_model(output_dir, _internal_call)
            return
        state_dict = self.accelerator.get_state_dict(self.model)
        model = cast(nn.Module, self.accelerator.unwrap_model(self.model))
        # Gathering gives tied weights a copy each; as in `save_pretrained`, the first of their names stays.
        every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        for name in every - {name for name, _ in model.named_parameters()}:
            state_dict.pop(name, None)
        if self.args.should_save:
            self._save(output_dir, state_dict)
        self.accelerator.wait_for_everyone()


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    """The batch of the examples' first sequences, and that of their second."""
    halves = {name: value.chunk(2) for name, value in batch.items()}
    return {name: half[0] for name, half in halves.items()}, {name: half[1] for name, half in halves.items()}


def _known(scores: Any, labels: Any) -> tuple[Any, Any]:
    """Scores and labels as arrays; of steps only those that are there, end to end."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    if labels.ndim == 1:
        return scores, labels
    there = np.abs(labels) == 1  # neither NO_STEP nor the padding of batches and processes
    return scores[there], labels[there]


def _evaluation_metrics(prediction: EvalPrediction) -> dict[str, float]:
    every_label, groups = cast(Any, prediction.label_ids)
    scores, labels = _known(prediction.predictions, every_label)
    metrics = reward_metrics(scores, labels)
    within = auc_within_prompts(scores, labels, groups) if scores.shape == groups.shape else np.nan
    return metrics if np.isnan(within) else metrics | {"rewards/auc_within_prompts": within}


def _check_model(model: nn.Module, ref_model: nn.Module | None, args: ImplicitPRMConfig) -> None:
    for role, candidate in (("model", model), ("ref_model", ref_model)):
        if candidate is not None and "ForSequenceClassification" in type(candidate).__name__:
            raise ImplicitPRMError(
                f"{role} is a {type(candidate).__name__}, but an implicit PRM is a causal LM: load it with "
                "AutoModelForCausalLM"
            )
    if ref_model is model:
        raise ImplicitPRMError("model and ref_model are one object; leave ref_model out for a frozen copy")
    if ref_model is not None and args.reference == "none":
        raise ImplicitPRMError("reference='none' takes no ref_model; leave one of them out")


def _check_trainable(model: nn.Module) -> None:
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ImplicitPRMError(
            "no weight of the model can be trained, requires_grad is False everywhere: load an adapter with "
            "is_trainable=True, or thaw the model with model.requires_grad_(True)"
        )


def _check_sequences(dataset: RewardDataset, model: nn.Module, args: ImplicitPRMConfig) -> None:
    _check_tokens(dataset, model)
    if args.max_length is not None:
        return
    limit = max_positions(model)
    # KTO's unmatched pairs, which no row is, stand in the second column.
    rows = dataset.examples if args.loss != "kto" else dataset.examples[:, :1]
    lengths = dataset.store.lengths[rows]
    if limit is not None and lengths.size and lengths.max() > limit:
        row = rows.flat[int(lengths.argmax())]
        raise ImplicitPRMError(
            f"row {dataset.store.ids[row]!r} has {lengths.max()} tokens, and the model reads {limit}: leave "
            f"it out, cut such rows with max_length={limit} and truncate='right', or set max_length to what "
            "the model is to read beyond that"
        )


def _check_tokens(dataset: RewardDataset, model: nn.Module) -> None:
    """An id outside the vocabulary ends the process on a GPU, without a word about the row."""
    tokens, size = dataset.store.tokens, len(cast(Any, model).get_input_embeddings().weight)
    outside = np.flatnonzero((tokens < 0) | (tokens >= size))
    if len(outside):
        row = np.searchsorted(dataset.store.starts, outside[0], side="right") - 1
        raise ImplicitPRMError(
            f"token {tokens[outside[0]]} of row {dataset.store.ids[row]!r} is outside the model's vocabulary "
            f"of {size} tokens: the rows were tokenised for another model"
        )


def _warn_of_low_precision(model: nn.Module) -> None:
    trained = (weight for weight in model.parameters() if weight.requires_grad)
    low = next((weight.dtype for weight in trained if torch.finfo(weight.dtype).bits < 32), None)
    if low is not None:
        warnings.warn(
            f"the trained weights are {low}, in which a step of {torch.finfo(low).eps / 2:g} of a weight or "
            "less is lost; load the model in float32 and set bf16=True",
            ImplicitPRMWarning,
            stacklevel=3,
        )
