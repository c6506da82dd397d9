"""A run that is killed at any moment, and gone on with, ends with the weights of one that was left alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from implicit_prime import checkpoint

pytestmark = pytest.mark.long

STEPS = 20
RUN = f"""
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from implicit_prime.config import PrimeConfig
from implicit_prime.trainer import PrimeTrainer
from implicit_prm.tasks.vocabulary import word_tokenizer

torch.set_num_threads(1)
torch.manual_seed(0)
words = word_tokenizer([f"w{{number}}" for number in range(45)], between=" ")
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=48, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, initializer_range=0.2, pad_token_id=0, eos_token_id=1, bos_token_id=None,
))
PrimeTrainer(
    model,
    args=PrimeConfig(
        output_dir=sys.argv[1], max_steps={STEPS}, prompts_per_step=3, mini_batch_size=6, save_steps=3,
        learning_rate=3e-3, prm_learning_rate=3e-3, max_completion_length=3, prm_replay_steps=2, use_cpu=True,
    ),
    train_dataset=[{{"prompt": f"w{{a}} w{{b}}", "answer": a}} for a in range(6) for b in range(2)],
    verifier=lambda texts, _: [float(len(text) % 2) for text in texts],
    processing_class=words,
).train(resume_from_checkpoint=True)
"""


def begin(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder)], stderr=subprocess.DEVNULL)


def done(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_killed_at_random_points_it_ends_as_one_in_one_piece(tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert begin(whole).wait() == 0
    moments = random.Random(0)
    kills = 0
    for target in (3, 8, 13):
        run = begin(pieces)
        while done(pieces) < target and run.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))  # in a step, or in the middle of a checkpoint
        if run.poll() is None:
            kills += 1
        run.kill()
        run.wait()
    assert begin(pieces).wait() == 0
    assert kills == 3
    assert done(pieces) == STEPS
    assert checkpoint.last_checkpoint(pieces) == pieces / f"checkpoint-{STEPS}"
    for name in ("policy", "prm"):
        one, two = (load_file(run / "final" / name / "model.safetensors") for run in (whole, pieces))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
