"""How an implicit PRM is trained: `transformers.TrainingArguments` with the paper's recipe as defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from transformers import TrainingArguments

from implicit_prm.errors import ImplicitPRMError

Loss = Literal["ce", "dpo", "nca", "kto", "step"]
Reference = Literal["model", "none"]
Balance = Literal["none", "dataset", "instruction"]
Pairing = Literal["one_to_one", "all", "balanced"]
StepForm = Literal["signed", "absolute"]
Truncate = Literal["error", "right"]

# One name of a choice -> what it may be; the annotations below say the same to a reader.
_CHOICES: dict[str, Any] = {
    "loss": Loss,
    "reference": Reference,
    "balance": Balance,
    "pairing": Pairing,
    "step_form": StepForm,
    "truncate": Truncate,
}


@dataclass
class ImplicitPRMConfig(TrainingArguments):
    """All of `TrainingArguments` and what belongs to the method (section 2).

    Defaults are the recipe of section 2.3: beta 0.05, learning rate 5e-7 with 3% warm-up and a cosine to a
    tenth, Adam betas (0.9, 0.95), no weight decay, one epoch.

    loss                  "ce", "dpo", "nca", "kto" on labels of responses (section 2.2), or "step", the
                          second stage on labels of steps
    beta                  scale of the reward
    reference             "model": a frozen copy of the initial model, the `ref_model` that the trainer is
                          given, or a PEFT model with its adapter off; "none": the uniform reference
    precompute_ref_log_probs
                          score all data with the reference once, before training, and keep the log-probs on
                          disk (`reference_cache_dir`, by default `output_dir`/reference); the reference then
                          takes no memory while training
    desirable_weight, undesirable_weight
                          weights of right and wrong responses ("ce", "kto")
    balance               as many right as wrong responses: "dataset" over all, "instruction" of every prompt
    pairing               how "dpo" and "nca" pair the responses of a prompt; "balanced" keeps at most
                          `max_pairs_per_prompt`
    steps                 how "step" splits responses that come as text (see `implicit_prm.steps`)
    step_form             which form of the step loss (see `functional.step_loss`)
    max_length            most tokens of prompt and response together; `truncate` says what happens beyond.
                          None: as many as the model reads, and more are an error
    add_eos               append the tokenizer's EOS to responses that lack it
    chunk_size            tokens whose logits exist at one time
    padding_free          feed a batch's tokens end to end as one row, without padding: faster with attention
                          that skips what lies outside a sequence (FlashAttention), slower with one that
                          does not
    disable_dropout       rewards are differences of two passes, so dropout is noise in them

    Raises `ImplicitPRMError` for values that cannot be, naming the key, the value and what is allowed.
    """

    loss: Loss = "ce"
    beta: float = 0.05
    reference: Reference = "model"
    precompute_ref_log_probs: bool = False
    reference_cache_dir: str | None = None
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    balance: Balance = "none"
    pairing: Pairing = "one_to_one"
    max_pairs_per_prompt: int | None = None
    steps: str = "paragraph"
    step_form: StepForm = "signed"
    max_length: int | None = None
    truncate: Truncate = "error"
    add_eos: bool = False
    chunk_size: int = 1024
    padding_free: bool = False
    disable_dropout: bool = True

    learning_rate: float = 5e-7
    adam_beta2: float = 0.95
    num_train_epochs: float = 1.0
    warmup_steps: float = 0.03
    lr_scheduler_type: str = "cosine_with_min_lr"
    logging_steps: float = 10
    # The trainer's batches are not a model's arguments, and are whole: nothing may be dropped from them.
    remove_unused_columns: bool = False
    # The average over responses needs no count of tokens over the processes.
    average_tokens_across_devices: bool = False
    # A loss that is no number is an error here, not something to average away.
    logging_nan_inf_filter: bool = False

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise _impossible(name, getattr(self, name), "one of " + ", ".join(get_args(kind)))
        for name in ("beta", "desirable_weight", "undesirable_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise _impossible(name, getattr(self, name), "a number above 0")
        if not 0 <= self.learning_rate < math.inf:
            raise _impossible("learning_rate", self.learning_rate, "a number of at least 0")
        for name in ("max_length", "max_pairs_per_prompt", "chunk_size", "per_device_train_batch_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or value != int(value) or value < 1):
                raise _impossible(name, value, "a whole number above 0")
        if self.loss == "kto" and self.per_device_train_batch_size < 2:
            raise _impossible(
                "per_device_train_batch_size",
                self.per_device_train_batch_size,
                "at least 2 with loss='kto', which estimates its KL term from the responses of one batch",
            )
        if (self.pairing == "balanced") != (self.max_pairs_per_prompt is not None):
            raise _impossible(
                "max_pairs_per_prompt", self.max_pairs_per_prompt, "given exactly when pairing='balanced'"
            )
        if self.balance != "none" and self.loss not in ("ce", "kto"):
            raise _impossible("balance", self.balance, f"'none' with loss={self.loss!r}: pairs are balanced")
        if self.lr_scheduler_type == "cosine_with_min_lr" and self.lr_scheduler_kwargs is None:
            self.lr_scheduler_kwargs = {"min_lr_rate": 0.1}
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False  # every trained weight takes part in every step
        if not torch.accelerator.is_available():
            self.dataloader_pin_memory = False  # pinned for nobody, torch would warn
        super().__post_init__()


def _impossible(name: str, value: object, allowed: str) -> ImplicitPRMError:
    return ImplicitPRMError(f"{name} is {value!r}; it must be {allowed}")
