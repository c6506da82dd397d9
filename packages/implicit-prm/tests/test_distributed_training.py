"""Two processes over gloo, replicated or fully sharded, give what one process gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

FSDP2 = Path(__file__).parents[1] / "launch" / "fsdp2.yaml"

# accelerate reads the FSDP settings on every kind of device, but with processes on the CPU it drops them
# (`AcceleratorState.__init__` leaves MULTI_CPU out). torch's `fully_shard` itself works on the CPU, so the
# state is given here what it would have on GPUs.
WORKER = """
import json, os, sys
from pathlib import Path
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.trainer import ImplicitPRMTrainer

torch.set_num_threads(1)


class OnCPU(ImplicitPRMTrainer):
    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if os.environ.get("ACCELERATE_USE_FSDP") == "true" and self.args.world_size > 1:
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            if self.accelerator.mixed_precision != "no":
                state.fsdp_plugin.set_mixed_precision(self.accelerator.mixed_precision)
            state.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.is_fsdp_enabled = True


class Dies(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise RuntimeError("the power failed")


def run(folder, settings, dies=False):
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(24):
        ids = torch.randint(3, 60, (int(torch.randint(4, 9, (), generator=generator)),), generator=generator)
        row = {"prompt_ids": [3 + number // 4], "completion_ids": ids.tolist(), "label": int(ids[0]) % 2}
        rows.append(row)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            tie_word_embeddings=settings.pop("tied", False), initializer_range=0.2,
        )
    )
    args = ImplicitPRMConfig(
        output_dir=folder, beta=0.5, learning_rate=3e-3, per_device_train_batch_size=8 // processes,
        per_device_eval_batch_size=8 // processes, num_train_epochs=3,
        save_steps=2, logging_steps=1, use_cpu=True, disable_tqdm=True, **settings,
    )
    trainer = OnCPU(model, args=args, train_dataset=rows, eval_dataset=rows)
    if dies:
        trainer.add_callback(Dies())
    trainer.train(resume_from_checkpoint=True)
    metrics = trainer.evaluate()
    trainer.save_model(str(Path(folder) / "final"))
    if trainer.is_world_process_zero():
        told = {"history": trainer.state.log_history, "metrics": metrics}
        Path(folder, "told.json").write_text(json.dumps(told))
"""

LAUNCH = """
import json, os, sys
from accelerate import debug_launcher
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from worker import run

fsdp2, one, two, settings, sharded = sys.argv[1:]
settings = json.loads(settings)
run(one, dict(settings))
if sharded == "sharded":
    command = ["--config_file", fsdp2, "--num_processes", "2", "unused.py"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
    os.environ.update({k: v for k, v in prepare_multi_gpu_env(arguments).items() if "FSDP" in k})
try:
    debug_launcher(run, (two, dict(settings), True), 2)
except Exception as error:
    if "the power failed" not in str(error):
        raise
else:
    sys.exit("it was not interrupted")
debug_launcher(run, (two, dict(settings)), 2)
"""


def environment(folder: Path) -> dict[str, str]:
    (folder / "worker.py").write_text(WORKER)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"}


def assert_close(one: Path, two: Path) -> None:
    weights, others = (load_file(path / "final" / "model.safetensors") for path in (one, two))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"loss": "ce", "tied": True, "padding_free": True}, "sharded"),
        pytest.param({"loss": "ce", "precompute_ref_log_probs": True}, "sharded", marks=pytest.mark.long),
        ({"loss": "kto", "precompute_ref_log_probs": True}, "replicated"),
    ],
)
def test_two_processes_interrupted_and_resumed_equal_one(
    settings: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    command = [sys.executable, "-c", LAUNCH, FSDP2, one, two, json.dumps(settings), kind]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    if kind == "sharded":
        assert list(two.glob("checkpoint-4/**/__1_0.distcp"))  # each process wrote its shard
    ours, theirs = (json.loads((path / "told.json").read_text()) for path in (two, one))
    logged = [[entry for entry in run["history"] if "rewards/margins" in entry] for run in (ours, theirs)]
    assert len(logged[0]) == len(logged[1]) == 9
    for entry, other in zip(*logged, strict=True):
        for name in ("loss", "grad_norm", "rewards/margins", "rewards/auc"):
            if name == "rewards/auc" and entry["step"] <= 2:
                continue  # before the first update the rewards are 0 up to rounding, and in any order
            assert entry[name] == pytest.approx(other[name], rel=2e-3, abs=1e-5), (entry["step"], name)
    for name in ("eval_loss", "eval_rewards/auc", "eval_rewards/auc_within_prompts", "eval_rewards/margins"):
        assert ours["metrics"][name] == pytest.approx(theirs["metrics"][name], rel=2e-3), name
    assert_close(one, two)


@pytest.mark.long
def test_killed_and_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    """kill -9 at some moment, several times over; each time the same command goes on."""
    settings = json.dumps({"loss": "ce"})
    command = [
        sys.executable,
        "-c",
        "import json, sys, worker; worker.run(sys.argv[1], json.loads(sys.argv[2]))",
    ]
    env = environment(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, whole, settings], env=env, check=True, capture_output=True, timeout=600)
    for step in (2, 6):
        process = subprocess.Popen([*command, killed, settings], env=env, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        # The folder appears before the checkpoint in it is whole.
        while not (killed / f"checkpoint-{step}").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, killed, settings], env=env, check=True, capture_output=True, timeout=600)
    weights, others = (load_file(path / "final" / "model.safetensors") for path in (whole, killed))
    assert all(torch.equal(others[name], weight) for name, weight in weights.items())
