"""The defaults are the paper's, and what cannot be is refused by name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from implicit_prime.config import PrimeConfig
from implicit_prime.errors import PrimeError


def test_the_defaults_are_the_papers() -> None:
    config = PrimeConfig(output_dir="run")
    expected = {
        "num_train_epochs": 1,
        "prompts_per_step": 256,
        "num_generations": 4,
        "beta": 0.05,
        "prm_loss": "ce",
        "prm_update": "after",
        "score_pass": "separate",
        "prm_train_on": "filtered",
        "ref": "sft",
        "recompute_ref": False,
        "advantage": "rloo",
        "process_baseline": "paper",
        "process_norm": "none",
        "process_weight": 1.0,
        "process_gamma": 1.0,
        "outcome_gamma": 1.0,
        "whiten": True,
        "accuracy_range": (0.2, 0.8),
        "filter_truncated": False,
        "max_refill_rounds": 16,
        "learning_rate": 5e-7,
        "prm_learning_rate": 1e-6,
        "mini_batch_size": 256,
        "clip": 0.2,
        "kl_coef": 0.0,
        "temperature": 1.0,
        "max_prompt_length": 1024,
        "max_completion_length": 3072,
        "weight_decay": 1e-2,
        "prm_weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "prm_max_grad_norm": 10.0,
        "micro_batch_size": 8,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.responses_per_step // config.mini_batch_size == 4  # gradient steps (section 2.3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.beta = 1.0  # type: ignore[misc]


def test_the_section_3_example_is_read() -> None:
    config = PrimeConfig(
        output_dir="run",
        num_generations=4,
        prompts_per_step=256,
        beta=0.05,
        prm_loss="ce",
        prm_update="after",
        ref="sft",
        advantage="rloo",
        process_norm="none",
        accuracy_range=(0.2, 0.8),
        learning_rate=5e-7,
        prm_learning_rate=1e-6,
        rollout="vllm_colocate",
    )
    assert config == PrimeConfig(output_dir="run", rollout="vllm_colocate")


def test_a_table_of_a_file_gives_the_same_settings_again() -> None:
    config = PrimeConfig(output_dir="run", accuracy_range=None, max_steps=7, process_weight="accuracy")
    table = config.to_dict()
    assert table["accuracy_range"] == "none"
    assert PrimeConfig.from_dict(table) == config
    assert PrimeConfig.from_dict({"output_dir": "run", "accuracy_range": [0, 1]}).accuracy_range == (0, 1)
    assert PrimeConfig.from_dict({"output_dir": "run", "prm_update": "none"}).prm_update == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_generations": 1}, "num_generations is 1; it must be at least 2"),
        ({"prm_loss": "kto"}, "prm_loss is 'kto'; it must be one of 'ce', 'ce_loo', 'dpo', 'nca'"),
        ({"advantage": "dapo"}, "advantage is 'dapo'"),
        ({"beta": 0}, "beta is 0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": "5e-7"}, "learning_rate is '5e-7'"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"process_gamma": 1.5}, "process_gamma is 1.5; it must be a number from 0 to 1"),
        ({"process_weight": -1}, "process_weight is -1; it must be a number of at least 0, or 'accuracy'"),
        ({"process_weight": "auto"}, "process_weight is 'auto'"),
        ({"clip": 1.0}, "clip is 1.0; it must be between 0 and 1"),
        ({"accuracy_range": (0.8, 0.2)}, r"accuracy_range is \(0.8, 0.2\)"),
        ({"accuracy_range": [0.2]}, r"accuracy_range is \(0.2,\)"),
        ({"accuracy_range": 0.5}, "accuracy_range is 0.5"),
        ({"whiten": "yes"}, "whiten is 'yes'; it must be true or false"),
        ({"max_refill_rounds": 0}, "max_refill_rounds is 0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"prompts_per_step": 2.5}, "prompts_per_step is 2.5"),
        ({"prompts_per_step": True}, "prompts_per_step is True"),
        ({"output_dir": ""}, "output_dir is ''"),
        ({"mini_batch_size": 300}, r"mini_batch_size is 300; .* = 1024"),
        ({"ref": "policy", "temperature": 0.7}, "temperature is 0.7 and ref is 'policy'.*recompute_ref"),
        ({"score_pass": "fused", "prm_update": "before"}, "score_pass is 'fused' and prm_update is 'before'"),
        ({"prm_update": "none", "prm_replay_steps": 1}, "prm_update='none' trains no PRM"),
        ({"prm_balanced": True, "prm_loss": "dpo"}, "prm_balanced is for prm_loss 'ce'"),
        ({"prm_update": "none", "prm_train_on": "all"}, "prm_train_on is 'all', but prm_update='none'"),
        ({"prm_update": "none", "prm_balanced": True}, "prm_balanced is True, .* leave it at False"),
        ({"prm_update": "none", "prm_loss": "nca"}, "prm_loss is 'nca', .* leave it at 'ce'"),
        ({"advantage": "ppo", "outcome_gamma": 0.9}, "outcome_gamma is 0.9, but advantage='ppo'"),
        ({"advantage": "implicit_value", "outcome_gamma": 0.9}, "outcome_gamma is 0.9, but .* nothing"),
        ({"advantage": "implicit_value", "process_gamma": 0.9}, "process_gamma is 0.9, but .* nothing"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PrimeError, match=message):
        PrimeConfig(**{"output_dir": "run"} | settings)  # type: ignore[arg-type]


def test_unknown_and_missing_keys_are_named() -> None:
    with pytest.raises(PrimeError, match="no setting 'learning_rat'; did you mean 'learning_rate'"):
        PrimeConfig.from_dict({"output_dir": "run", "learning_rat": 1})
    with pytest.raises(PrimeError, match="output_dir is missing"):
        PrimeConfig.from_dict({})


def test_a_reference_at_another_temperature_is_allowed_when_it_is_recomputed() -> None:
    assert PrimeConfig(output_dir="run", ref="policy", temperature=0.7, recompute_ref=True).ref == "policy"


def test_a_step_smaller_than_a_mini_batch_is_one_mini_batch_for_any_number_of_processes_that_divides_it() -> (
    None
):
    config = PrimeConfig(output_dir="run", prompts_per_step=6)
    config.check_world_size(3)
    with pytest.raises(PrimeError, match=r"prompts_per_step is 6; it must be a multiple .* processes, 4"):
        config.check_world_size(4)
    with pytest.raises(PrimeError, match="mini_batch_size is 12; it must be a multiple"):
        PrimeConfig(output_dir="run", prompts_per_step=24, mini_batch_size=12).check_world_size(8)


def test_settings_need_neither_torch_nor_transformers() -> None:
    code = "import sys, implicit_prime as p; p.PrimeConfig(output_dir='x'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
