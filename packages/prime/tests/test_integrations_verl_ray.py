"""Two steps of PRIME by verl on a local Ray cluster without a GPU: all of verl but its rollout engines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

if find_spec("verl") is not None:
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["VERL_USE_EXTERNAL_MODULES"] = "verl_on_cpu"
pytest.importorskip("verl", reason="verl is not installed: make test-verl")
pytest.importorskip("transfer_queue", reason="verl's core extra is not installed: make test-verl")

import ray
from datasets import Dataset
from verl.trainer.main_ppo import run_ppo

from implicit_prime.integrations.verl import main
from implicit_prime.integrations.verl.settings import compose_config

OPTIONS = {"use_remove_padding": False, "override_config": {"attn_implementation": "eager"}}
ENGINE = {"+mixed_precision": {"param_dtype": "fp32"}, "use_torch_compile": False}
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # Ray's workers inherit it
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_prestart_worker_first_driver", "0")  # else a process for each CPU that is told
    yield
    ray.shutdown()


def write_data(folder: Path) -> str:
    rows = [
        {
            "data_source": "words",
            "prompt": [{"role": "user", "content": f"w{number} w2"}],
            "ability": "exact",
            "reward_model": {"style": "rule", "ground_truth": "w0"},
            "extra_info": {"index": number},
        }
        for number in range(40)
    ]
    Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    return str(folder / "train.parquet")


def tables(folder: Path, model: str, data: str) -> dict[str, Any]:
    micro = {"log_prob_micro_batch_size_per_gpu": 4}
    return {
        "prime": {"beta": 0.05},
        "verifier": {"exact": {}},
        "data": {
            "train_files": [data],
            "val_files": [data],
            "train_batch_size": 2,
            "max_prompt_length": 8,
            "max_response_length": 8,
            "dataloader_num_workers": 0,
            "seed": 0,
        },
        "actor_rollout_ref": {
            "model": {"path": model, **OPTIONS},
            "actor": {
                "strategy": "fsdp2",
                "ppo_mini_batch_size": 2,
                "ppo_micro_batch_size_per_gpu": 4,
                "use_torch_compile": False,
                "optim": {"lr": 1e-3},
                "fsdp_config": ENGINE,
            },
            "ref": {**micro, "fsdp_config": ENGINE},
            "rollout": {
                "name": "vllm",  # never started
                "nnodes": 1,  # what verl asks for where no engine shares the trainer's devices
                "n": 4,
                "calculate_log_probs": False,
                "tensor_model_parallel_size": 1,
                **micro,
                "agent": {"num_workers": 1, "+agent_loop_manager_class": "verl_stand_in.StandInManager"},
            },
        },
        "critic": {
            "strategy": "fsdp2",
            "ppo_micro_batch_size_per_gpu": 4,
            "model": OPTIONS,
            "optim": {"lr": 1e-3},
            "fsdp": ENGINE,
        },
        "reward": {"num_workers": 1},
        "transfer_queue": {"backend": {"SimpleStorage": {"num_data_storage_units": 1}}},
        "ray_kwargs": {"ray_init": {"num_cpus": 16, "+num_gpus": 1, "+include_dashboard": False}},
        "trainer": {
            "device": "cpu",
            "n_gpus_per_node": 1,
            "total_epochs": 5,
            "total_training_steps": 2,
            "val_before_train": False,
            "save_freq": 2,
            "logger": ["console", "file"],
            "default_local_dir": str(folder / "checkpoints"),
        },
    }


@pytest.mark.slow
def test_two_steps_train_policy_and_prm_and_save_both(
    cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Callable[..., LlamaForCausalLM],
    words: PreTrainedTokenizerFast,
) -> None:
    from verl_stand_in import StandInRunner

    tiny_llama(max_position_embeddings=512).save_pretrained(tmp_path / "model")
    words.chat_template = CHAT
    words.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    config = compose_config(tables(tmp_path, str(tmp_path / "model"), write_data(tmp_path)))
    main.validate(config)
    run_ppo(config, task_runner_class=StandInRunner)

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    steps = {row["step"]: row["data"] for row in map(json.loads, lines)}
    assert set(steps) == {1, 2}
    for metrics in steps.values():
        assert metrics["prime/unjudged"] == 0
        assert 0 < metrics["prime/pass_rate"] <= 1
        assert metrics["prm/grad_norm"] > 0
        assert metrics["actor/grad_norm"] > 0
    # The PRM begins as its reference, so that sigma(h) is one half and the cross-entropy log 2.
    assert steps[1]["prm/loss"] == pytest.approx(0.6931, abs=1e-4)
    assert steps[1]["prm/token_reward"] == pytest.approx(0, abs=1e-6)
    assert steps[2]["prm/token_reward"] > 1e-5
    for name in ("actor", "critic"):
        (file,) = (tmp_path / "checkpoints" / "global_step_2" / name).glob("model_world_size_1_rank_0.pt")
        assert torch.load(file, weights_only=False, map_location="cpu")
