"""Some steps of training give the losses and the weights of TRL's trainers, from the same rows of text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.trainer import ImplicitPRMTrainer

pytestmark = pytest.mark.slow
pytest.importorskip("trl")

PAIRS = [
    {
        "prompt": f"Step {n}: so the answer",
        "chosen": f" is {7 * n}.",
        "rejected": f" is {n} so the {n * n} is",
    }
    for n in range(1, 9)
]
UNPAIRED = [
    {"prompt": "the answer is 42. so", "completion": " the answer is 4", "label": True},
    {"prompt": "Step 1:", "completion": " is the answer", "label": False},
]
SHARED: dict[str, Any] = {
    "beta": 0.3,
    # Adam divides by the gradient's size, so that rounding decides where a gradient is all but zero.
    "optim": "sgd",
    "learning_rate": 2e-2,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "train_sampling_strategy": "sequential",
    "per_device_train_batch_size": 2,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "max_length": 64,
}


def trained(
    make: Callable[..., Any], model: LlamaForCausalLM, ref: LlamaForCausalLM, **settings: Any
) -> list[Any]:
    trainer = make(model=model, ref_model=ref, **settings)
    trainer.train()
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("loss", "theirs"), [("dpo", "sigmoid"), ("nca", "nca_pair"), ("kto", "kto")])
def test_training_equals_trls(
    loss: str,
    theirs: str,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    rows, epochs = (UNPAIRED, 4) if loss == "kto" else (PAIRS, 1)
    config, trainer = (KTOConfig, KTOTrainer) if loss == "kto" else (DPOConfig, DPOTrainer)
    settings = {**SHARED, "output_dir": str(tmp_path), "num_train_epochs": epochs}
    of_trl, ours = tiny_llama(0), tiny_llama(0)
    expected = trained(
        trainer,
        of_trl,
        tiny_llama(1),
        args=config(**settings, loss_type=theirs),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    found = trained(
        ImplicitPRMTrainer,
        ours,
        tiny_llama(1),
        args=ImplicitPRMConfig(**settings, loss=loss, add_eos=True),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    assert len(found) == len(expected) == 4
    for entry, other in zip(found, expected, strict=True):
        for name in ("loss", "grad_norm", "rewards/chosen", "rewards/rejected", "rewards/margins"):
            assert entry[name] == pytest.approx(other[name], rel=2e-4, abs=1e-5), name
    for name, weight in of_trl.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-4, atol=1e-5)
