"""Fully sharded training by two processes over gloo gives what one process gives, and can be interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmlab.train import run_file

FSDP2 = Path(sys.modules["lmlab.train"].__file__ or "").with_name("configs") / "fsdp2.yaml"
RUN = """
corpus = {{ name = "{corpus}", vocab_size = 400, context_length = 32 }}
evaluation = {{ lengths = [16, 64], passkey_lengths = [256], passkey_trials = 1, passkey_depths = [0.5] }}

[model]
model_type = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
tie_word_embeddings = true

[apply]
function = "interruption:modify"

[training]
max_steps = 8
batch_size = 6
gradient_accumulation_steps = 3
learning_rate = 0.01
warmup_steps = 2
eval_every = 4
checkpoint_every = 3
"""

# A change to the model that changes nothing, but ends the process in step 6 where the environment says so.
INTERRUPTION = """
import os

def modify(model):
    seen = []
    def count(module, arguments):
        seen.append(module.training)
        if "INTERRUPT" in os.environ and sum(seen) > 5 * 3:
            raise RuntimeError("the power failed")
    model.register_forward_pre_hook(count)
    return model
"""

# What `accelerate launch --config_file fsdp2.yaml --num_processes 2` does, by processes that are forked when
# everything is imported: the environment that it makes of the file, then the function in every process.
LAUNCH = """
import os, sys
from pathlib import Path
from accelerate import debug_launcher
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from lmlab.train import run_file

fsdp2, file, output = sys.argv[1:]
command = ["--config_file", fsdp2, "--num_processes", "2", "unused.py"]
arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
os.environ.update({k: v for k, v in prepare_multi_gpu_env(arguments).items() if "FSDP" in k})

os.environ["INTERRUPT"] = "1"
try:
    debug_launcher(run_file, (file, output), 2)
except Exception as error:
    if "the power failed" not in str(error):
        raise
else:
    sys.exit("it was not interrupted")
print(*sorted(path.name for path in Path(output, "checkpoints").rglob("*")))
del os.environ["INTERRUPT"]
debug_launcher(run_file, (file, output), 2)
"""


@pytest.fixture
def file(tmp_path: Path, small_corpus: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "interruption.py").write_text(INTERRUPTION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "run.toml"
    file.write_text(RUN.format(corpus=small_corpus))
    return file


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


def assert_same_run(folder: Path, other: Path) -> None:
    for ours, theirs in zip(curve(folder), curve(other), strict=True):
        for key in ("step", "tokens", "loss", "grad_norm", "learning_rate", "valid_loss"):
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4), key
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (folder, other))
    assert ours["parameters"] == theirs["parameters"]
    for key in ("loss", "bits_per_byte"):
        assert ours["splits"]["valid"][key] == pytest.approx(theirs["splits"]["valid"][key], rel=1e-4)
    assert ours["passkey"][0]["length"] == theirs["passkey"][0]["length"] == 256
    weights, others = (load_file(path / "model" / "model.safetensors") for path in (folder, other))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_interrupted_and_resumed_equal_one(file: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run_file(file, one)
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, FSDP2, file, two],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "checkpoint-3" in done.stdout
    for process in (0, 1):  # each wrote its shard
        assert f"__{process}_0.distcp" in done.stdout
    assert json.loads((two / "metrics.json").read_text())["processes"] == 2
    assert_same_run(one, two)


@pytest.mark.slow
def test_accelerate_launch(file: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run_file(file, one)
    command: list[str | Path] = [
        Path(sys.executable).with_name("accelerate"),
        "launch",
        "--config_file",
        FSDP2,
    ]
    command += ["--num_processes", "2", "-m", "lmlab.train", "--config", file, "--out", two]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads((two / "metrics.json").read_text())["processes"] == 2
    assert done.stdout.count("parameters") == 1  # one process speaks
    assert_same_run(one, two)
