"""The run files of the paper's models, and the scripts that launch them on many GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import lpa
from lmlab.models import build_model
from lmlab.train import RunConfig
from lpa.reproduce.training import AS_OFFICIAL, as_official, modify, sweep_ranks, train_file
from tenfold.configs import read_config

LAUNCH = Path(__file__).parents[1] / "launch"
SLURM = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_GPUS_ON_NODE": "4"}


@pytest.mark.parametrize(
    ("script", "environment", "expected"),
    [
        ("torchrun.sh", {"GPUS": "3"}, ["--num_processes 3"]),
        (
            "slurm.sbatch",
            SLURM,
            ["--num_machines 2 --num_processes 8 --machine_rank 1 --main_process_ip a1"],
        ),
    ],
)
def test_launch_scripts_call_accelerate_with_fsdp2(
    script: str, environment: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    """With stand-ins for what a cluster has; the settings file must be there."""
    stands = {
        "accelerate": 'test -f "$3" || exit 1; echo "$@"',
        "scontrol": "echo a1; echo a2",
        "srun": 'exec "$@"',
    }
    for name, code in stands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    python = Path(sys.executable).parent
    path = f"{tmp_path}:{python}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", str(LAUNCH / script), "run.toml", "--out", "a b"],
        env=os.environ | environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    assert "fsdp2.yaml" in ended.stdout
    assert ended.stdout.strip().endswith("-m lmlab.train --config run.toml --out a b")
    for words in expected:
        assert words in ended.stdout


RUNS = {
    "setting1_370m.toml": "setting1-370m",
    "setting2_130m.toml": "setting2-130m",
    "setting2_370m.toml": "setting2-370m",
    "setting2_3b.toml": "setting2-3b",
}
runs = pytest.mark.parametrize(("file", "preset"), RUNS.items())


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def test_every_run_file_is_of_a_preset() -> None:
    assert {file.name for file in LAUNCH.glob("*.toml")} == set(RUNS)


@runs
@pytest.mark.parametrize("low", [True, False])
def test_a_run_file_makes_the_model_of_its_preset(file: str, preset: str, low: bool) -> None:
    config = read_config(LAUNCH / file, RunConfig, [] if low else ["apply.options={}"])
    assert config.apply is not None
    assert config.apply.function == AS_OFFICIAL
    with torch.device("meta"):
        model = as_official(build_model(config.model, config.seed), **config.apply.options)
        expected = lpa.presets[preset].build(low_attention=low)
    assert lpa.is_lpa(model) == low
    assert shapes(model) == shapes(expected)
    known = (
        "hidden_act",
        "rms_norm_eps",
        "rope_parameters",
        "max_position_embeddings",
        "dropout",
        "head_dim",
    )
    for key in known:
        assert getattr(model.config, key, None) == getattr(expected.config, key, None), key


@runs
def test_a_run_file_trains_as_its_preset_does(file: str, preset: str) -> None:
    config, official = read_config(LAUNCH / file, RunConfig, []), lpa.presets[preset].training
    ours = config.training
    assert (config.corpus.context_length, ours.batch_size) == (official.context, official.batch_size)
    assert (ours.learning_rate, ours.warmup_steps) == (official.lr, official.warmup_steps)
    assert (ours.betas, ours.eps, ours.weight_decay) == (official.betas, official.eps, official.weight_decay)
    assert (ours.max_grad_norm, ours.precision, ours.schedule) == (
        official.clip_norm,
        official.precision,
        "cosine",
    )
    assert {config.seed, ours.seed, ours.data_seed} == {official.seed}
    steps = official.steps or round(official.epochs * 120e6 / official.tokens_per_step, -2)  # see the file
    assert ours.max_steps == steps


@pytest.fixture
def smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The changes that let a run file train in seconds."""
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    sentence = "Chapter {0}. The rank of a matrix is at most {0}; its rows span a space of dimension {0}."
    text.write_text("\n\n".join(sentence.format(n) * 30 for n in range(60)))
    corpus = {"name": f"'file:{text}'", "vocab_size": 300, "context_length": 16}
    model = {"vocab_size": 301, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    model |= {"num_attention_heads": 2}
    training = {"max_steps": 2, "batch_size": 8, "warmup_steps": 0, "precision": "'fp32'"}
    tables = {"corpus": corpus, "model": model, "training": training, "evaluation": {"max_blocks": 2}}
    return [f"{table}.{key}={value}" for table, keys in tables.items() for key, value in keys.items()]


def test_setting_1_trains_from_its_file_with_the_official_biases(tmp_path: Path, smaller: list[str]) -> None:
    changes = [*smaller, "model.head_dim=16", "apply.options.rank=8"]
    train_file(LAUNCH / "setting1_370m.toml", tmp_path / "out", changes)
    model = lpa.ClassicForCausalLM.from_pretrained(tmp_path / "out" / "model")
    attention = model.model.layers[0].self_attn
    assert (model.config.rank, attention.q_proj.rank) == (8, 8)
    assert attention.q_proj.down.bias is not None
    assert attention.q_proj.up.bias is None


def test_setting_2_is_swept_from_its_file_with_the_official_head(tmp_path: Path, smaller: list[str]) -> None:
    changes = [*smaller, "model.num_key_value_heads=2"]
    rows = sweep_ranks(LAUNCH / "setting2_130m.toml", tmp_path / "out", [8], changes)
    saved = 4 * (32 * 32 - 8 * 64)
    assert rows[0]["parameters"] - rows[1]["parameters"] == saved
    assert rows[0]["parameters"] == 2 * 301 * 32 + 301 + 4 * 32 * 32 + 3 * 32 * 48 + 3 * 32
    for folder, low in (("dense", False), ("rank-8", True)):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / folder / "model")
        assert lpa.is_lpa(model) == low
        assert model.lm_head.bias.abs().max() > 0


def test_a_function_of_another_is_not_replaced_without_a_word(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[model]\nmodel_type = "llama"\n[apply]\nfunction = "my.module:own"\n')
    for run in (train_file, partial(sweep_ranks, ranks=[8])):
        with pytest.raises(lpa.LPAError, match=r"function is 'my\.module:own'.*by `lmlab train`"):
            run(file, tmp_path / "out")


# What `accelerate launch --config_file fsdp2.yaml --num_processes 2` does, by forked processes over gloo.
SHARDED = """
import os, sys
from accelerate import debug_launcher
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from lmlab.train import run_file

fsdp2, file, output, *changes = sys.argv[1:]
command = ["--config_file", fsdp2, "--num_processes", "2", "unused.py"]
arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
os.environ.update({k: v for k, v in prepare_multi_gpu_env(arguments).items() if "FSDP" in k})

def train():
    run_file(file, output, assignments=changes)

debug_launcher(train, num_processes=2)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("setting1_370m.toml", ["model.head_dim=16", "model.dropout=0.0"]),
        ("setting2_130m.toml", ["model.num_key_value_heads=2"]),
    ],
)
def test_two_sharded_processes_give_and_save_what_one_does(
    file: str, own: list[str], tmp_path: Path, smaller: list[str]
) -> None:
    changes = [*smaller, *own, "apply.options.rank=8", "model.num_hidden_layers=2"]
    one, two = tmp_path / "one", tmp_path / "two"
    train_file(LAUNCH / file, one, changes)
    fsdp2 = str(files("lmlab") / "configs" / "fsdp2.yaml")
    command = [sys.executable, "-c", SHARDED, fsdp2, str(LAUNCH / file), str(two), *changes]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    alone, together = (
        AutoModelForCausalLM.from_pretrained(folder / "model").state_dict() for folder in (one, two)
    )
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-3, atol=1e-4)


def test_ranks_of_a_setting_1_config_are_kept_and_not_swept(tmp_path: Path, smaller: list[str]) -> None:
    settings = {
        "model_type": "lpa_classic",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
    }
    model = build_model(settings | {"num_attention_heads": 2, "head_dim": 16, "rank": 8, "vocab_size": 9}, 0)
    assert modify(model) is model
    with pytest.raises(lpa.LPAError, match="low-rank already"):
        modify(model, rank=4)
    with pytest.raises(lpa.LPAError, match="rank and ffn_rank, not targets"):
        as_official(model, targets=["q"])
    with pytest.raises(lpa.LPAError, match=r"take out model\.rank"):
        sweep_ranks(LAUNCH / "setting1_370m.toml", tmp_path / "out", [8], [*smaller, "model.rank=8"])
