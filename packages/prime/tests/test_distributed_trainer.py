"""Two processes over gloo, replicated or sharded, give what one process gives; kill -9 changes nothing."""

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

# accelerate reads the FSDP settings on every kind of device, but with processes on the CPU it drops them
# (`AcceleratorState.__init__` leaves MULTI_CPU out). torch's `fully_shard` itself works on the CPU, so the
# state is given here what it would have on GPUs. The engine draws by the prompt alone, so that what is drawn
# does not depend on who draws it.
WORKER = '''
import os
import resource
import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import LlamaConfig, LlamaForCausalLM
from implicit_prime.config import PrimeConfig
from implicit_prime.errors import PrimeError
from implicit_prime.rollout import Rollouts
from implicit_prime.trainer import PrimeTrainer
from implicit_prm.tasks.vocabulary import word_tokenizer

torch.set_num_threads(1)
ROWS = [{"prompt": f"w{a} w{b}", "answer": a} for a in range(6) for b in range(2)]


def even_word_first(texts, answers):
    firsts = [(text.split() or ["w1"])[0] for text in texts]
    return [float(first[1:].isdigit() and int(first[1:]) % 2 == 0) for first in firsts]


class OnCPU(PrimeTrainer):
    def _accelerator(self):
        accelerator = Accelerator(cpu=True)
        if os.environ.get("SHARDED") and accelerator.num_processes > 1:
            accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
            accelerator.state.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        return accelerator


class ByPrompt:
    def __init__(self, engine):
        self.engine = engine

    def sync_weights(self, model):
        self.engine.sync_weights(model)

    def rest(self):
        self.engine.rest()

    def generate(self, prompts, n, sampling):
        from dataclasses import replace
        drawn = [self.engine.generate([ids], n, replace(sampling, seed=sum(ids))) for ids in prompts]
        return Rollouts(*(
            [x for one in drawn for x in getattr(one, name)]
            for name in ("ids", "log_probs", "truncated", "texts")
        ))


def build(folder, settings):
    torch.manual_seed(0)
    words = word_tokenizer([f"w{number}" for number in range(45)], between=" ")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.2, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        tie_word_embeddings=settings.pop("tied", False),
    ))
    args = PrimeConfig(**{
        "output_dir": str(folder), "max_steps": 3, "prompts_per_step": 4, "mini_batch_size": 8,
        "micro_batch_size": 3, "learning_rate": 3e-3, "prm_learning_rate": 3e-3, "max_completion_length": 3,
        "max_prompt_length": 8, "save_steps": 1, "use_cpu": True, **settings,
    })
    trainer = OnCPU(
        model, args=args, train_dataset=ROWS, verifier=even_word_first, eval_dataset=ROWS,
        processing_class=words,
    )
    trainer.engine = trainer.collector.engine = ByPrompt(trainer.engine)
    return trainer


def run(folder, settings, resume=False):
    trainer = build(folder, settings)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.evaluate()


def fill(folder, room):
    """After the first step the main process, which writes, may write no file of more than `room` bytes."""
    trainer = build(folder, {})
    steps = trainer.steps()
    next(steps)
    if trainer.accelerator.is_main_process:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        next(steps)
    except PrimeError as error:
        (folder.parent / f"told-{trainer.accelerator.process_index}").write_text(str(error))
'''

LAUNCH = """
import json, sys
from accelerate import debug_launcher
from accelerate.state import AcceleratorState
from worker import run

one, two, settings = sys.argv[1:]
settings = json.loads(settings)
run(one, dict(settings))
AcceleratorState._reset_state(reset_partial_state=True)  # else the forks take themselves for that one process
debug_launcher(run, (two, dict(settings, max_steps=2)), 2)
debug_launcher(run, (two, dict(settings), True), 2)
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    (folder / "worker.py").write_text(WORKER)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **more}


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("settings", "sharded"),
    [
        ({"prm_train_on": "all", "tied": True}, "1"),
        pytest.param({"prm_loss": "nca", "advantage": "ppo"}, "1", marks=pytest.mark.long),
        ({"prm_replay_steps": 2, "prm_train_on": "all"}, ""),
    ],
)
def test_two_processes_resumed_equal_one(settings: dict[str, Any], sharded: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    command = [sys.executable, "-c", LAUNCH, one, two, json.dumps(settings)]
    env = environment(tmp_path, SHARDED=sharded)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    assert len(log(one)) == len(log(two)) == 3
    for ours, theirs in zip(log(two), log(one), strict=True):
        for name in ("reward/mean", "prm/loss", "prm/grad_norm", "policy/loss", "policy/grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=5e-3, abs=1e-5), (ours["step"], name)
    for part in ("policy", "prm"):
        weights, others = (load_file(path / "final" / part / "model.safetensors") for path in (one, two))
        assert weights.keys() == others.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(others[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "sharded", ["1", pytest.param("", marks=pytest.mark.long)], ids=["sharded", "replicated"]
)
def test_a_full_disk_is_told_by_both_processes(sharded: str, tmp_path: Path) -> None:
    """The policy's weights cannot be written, and what all processes gather after them is gathered still."""
    code = (
        "import sys, pathlib; from accelerate import debug_launcher; from worker import fill; "
        "debug_launcher(fill, (pathlib.Path(sys.argv[1]), int(sys.argv[2])), 2)"
    )
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", code, run, "50000"],
        env=environment(tmp_path, SHARDED=sharded),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    told = [(tmp_path / f"told-{rank}").read_text() for rank in range(2)]
    assert all("could not be written" in one and "checkpoint-1 is whole" in one for one in told), told
    assert [path.name for path in run.glob("*checkpoint*")] == ["checkpoint-1"]
    assert not list(run.glob(".*partial"))


@pytest.mark.long
def test_killed_and_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    """kill -9 at some moment, several times over; each time the same command goes on."""
    code = "import sys, worker; worker.run(sys.argv[1], {'max_steps': 6, 'prm_replay_steps': 2}, True)"
    command = [sys.executable, "-c", code]
    env = environment(tmp_path, SHARDED="")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, whole], env=env, check=True, capture_output=True, timeout=600)
    for step in (1, 3):
        process = subprocess.Popen(
            [*command, killed], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while not (killed / f"checkpoint-{step}").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.05 * step)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, killed], env=env, check=True, capture_output=True, timeout=600)
    for part in ("policy", "prm"):
        weights, others = (load_file(path / "final" / part / "model.safetensors") for path in (whole, killed))
        assert all(torch.equal(others[name], weight) for name, weight in weights.items())
