"""The paper's pre-training runs: the values of its text, each trained much narrower, and the launchers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

import memoryformer as mf
from lmlab.models import build_model
from lmlab.train import RunConfig
from lmlab.training import NonFiniteLossError, train
from memoryformer.errors import MemoryFormerError
from memoryformer.reproduce import training
from memoryformer.reproduce.paper import TASKS, paper_config, paper_names
from memoryformer.reproduce.training import plan, run_config, train_run
from tenfold.errors import UsageError

LAUNCH = Path(__file__).parents[1] / "launch"
SLURM = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_GPUS_ON_NODE": "4"}


@pytest.mark.parametrize(
    ("name", "tables", "gigabytes", "rate"),
    [("tiny", 415e6, 7.5, 3e-3), ("small", 1.87e9, 31, 1.8e-3), ("base", 6.64e9, 108, 9e-4)],
)
def test_sizes_of_the_paper_s_models(name: str, tables: float, gigabytes: float, rate: float) -> None:
    config = paper_config(name)
    found = plan(config, gpus=32)
    assert found.table_parameters == pytest.approx(tables, rel=2e-3)
    assert found.state_bytes == pytest.approx(gigabytes * 1e9, rel=6e-3)
    assert found.bytes_per_gpu == -(-found.state_bytes // 32)
    assert config.training.learning_rate == rate
    preset = mf.MemoryFormerConfig.preset(name)
    model = {key: value for key, value in config.model.items() if key != "model_type"}
    assert model == {key: getattr(preset, key) for key in model}
    assert found.parameters == mf.flops.parameters(preset)["total"]


@pytest.mark.parametrize(("ours", "theirs"), [("tiny", "70m"), ("small", "160m"), ("base", "410m")])
def test_a_transformer_has_the_same_shape_steps_and_a_third_of_the_rate(ours: str, theirs: str) -> None:
    a, b = paper_config(ours), paper_config(f"pythia-{theirs}")
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        assert a.model[key] == b.model[key]
    assert a.training.learning_rate == pytest.approx(3 * b.training.learning_rate)
    assert a.training.max_steps == b.training.max_steps == 106_418
    assert plan(a).tokens == plan(b).tokens == pytest.approx(223e9, rel=1e-3)


def test_the_plan_divides_the_work_by_the_time() -> None:
    found = plan(paper_config("tiny"), gpus=8, days=2)
    config = mf.MemoryFormerConfig.preset("tiny")
    a_token = 3 * 2 * mf.flops.count_model(config, 2048)["total"] / 2048
    assert found.flops_per_second == pytest.approx(a_token * found.tokens / (2 * 86400))
    fetched = 6 * 64 * (3 * 512 + 640 + 512)  # numbers of the rows that a token fetches
    assert found.table_bytes_per_second == pytest.approx(3 * 4 * fetched * found.tokens / (2 * 86400))


def test_a_plan_that_cannot_be() -> None:
    with pytest.raises(MemoryFormerError, match="not a multiple of 3 GPUs"):
        plan(paper_config("tiny"), gpus=3)
    with pytest.raises(MemoryFormerError, match="days 0"):
        plan(paper_config("tiny"), days=0)


@pytest.mark.parametrize("name", paper_names())
def test_every_run_trains_narrow(name: str) -> None:
    config = paper_config(name)
    model = _narrow_model(config)
    steps = {"max_steps": 2, "batch_size": 1, "gradient_accumulation_steps": 1, "warmup_steps": 0}
    tokens = torch.randint(300, (2, 64), generator=torch.Generator().manual_seed(0))
    before = model.get_output_embeddings().weight.detach().clone()
    trained = train(model, tokens, config.training.model_copy(update=steps | {"checkpoint_every": 0}))
    (entry,) = trained.curve
    # Random tokens, a model that knows nothing: ln V, and half the variance of its logits (d · 2 / 5d).
    variance = 0.4 if config.model["model_type"] == "memoryformer" else 0.0
    assert entry["loss"] == pytest.approx(math.log(300) + variance / 2, abs=0.15)
    assert not torch.equal(model.get_output_embeddings().weight, before)


def _narrow_model(config: RunConfig) -> PreTrainedModel:
    """The model of a run at an eighth of the width, with two layers and a small vocabulary."""
    settings = config.model | {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 300}
    for key in {"hidden_size", "intermediate_size"} & set(settings):
        settings[key] //= 8
    return build_model(settings, seed=config.seed)


def test_a_change_goes_into_the_run_and_a_mistake_names_the_key() -> None:
    changed = run_config("tiny", ["model.expand_bits=3", "training.max_steps=3"])
    assert changed.model["expand_bits"] == 3
    assert changed.training.max_steps == 3
    assert paper_config("tiny").training.max_steps == 106_418
    with pytest.raises(UsageError, match=r"tiny.*training.max_step'.*training.max_steps"):
        run_config("tiny", ["training.max_step=3"])


def test_another_name_is_told_the_names() -> None:
    with pytest.raises(MemoryFormerError, match=r"'tiney' is neither .* tiny, small, base, pythia-70m"):
        run_config("tiney")


def test_a_diverged_memoryformer_is_told_of_table_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def diverge(*args: object, **kwargs: object) -> None:
        raise NonFiniteLossError(7, 3e-3, math.nan, math.inf, None)

    monkeypatch.setattr(training, "run", diverge)
    with pytest.raises(MemoryFormerError, match=r"diverged at step 7.*Table 4"):
        train_run(paper_config("tiny"), tmp_path)
    with pytest.raises(NonFiniteLossError):
        train_run(paper_config("pythia-70m"), tmp_path)


@pytest.mark.parametrize(
    ("script", "environment", "arguments", "expected"),
    [
        (
            "torchrun.sh",
            {"GPUS": "3"},
            ["tiny", "--set", "a=b c"],
            ["fsdp2.yaml", "--num_processes 3", "-m memoryformer train tiny --set a=b c"],
        ),
        (
            "slurm.sbatch",
            SLURM,
            ["base", "--set", "a=b c"],
            [
                "--num_machines 2 --num_processes 8 --machine_rank 1 --main_process_ip a1",
                "-m memoryformer train base --set a=b c",
            ],
        ),
        ("evaluate.sh", {}, ["runs/tiny"], [f"eval runs/tiny/model --tasks {','.join(TASKS)}"]),
    ],
)
def test_launch_scripts(
    script: str, environment: dict[str, str], arguments: list[str], expected: list[str], tmp_path: Path
) -> None:
    """With stand-ins for what a cluster has; the settings file must be there."""
    stands = {
        "accelerate": 'test -f "$3" || exit 1; echo "$@"',
        "memoryformer": 'echo "$@"',
        "scontrol": "echo a1; echo a2",
        "srun": 'exec "$@"',
    }
    for name, code in stands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        env=os.environ | environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    for words in expected:
        assert words in ended.stdout
