"""Tensor parallelism: the plans of families, and two processes that compute what one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, Phi3Config, Qwen3Config

import lpa
from lpa.parallel import low_rank_plan

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
ATTENTION = "layers.*.self_attn."
MLP = {key: value for key, value in LlamaConfig.base_model_tp_plan.items() if ".mlp." in key}

PROCESS = """
import os
import sys
import torch
import torch.distributed as dist
import torch.distributed.tensor.parallel
from transformers import AutoModelForCausalLM
from transformers import GPTNeoXForCausalLM, LlamaForCausalLM, Phi3ForCausalLM, Qwen3ForCausalLM
import lpa

other = os.fork()  # when all is imported, which takes seconds: now there are two processes
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"

def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto")
    ids = torch.load(f"{folder}/ids.pt")
    with torch.no_grad():
        logits = model(ids).logits
    model(ids, labels=ids).loss.backward()
    named = dict(model.named_parameters())
    result = {
        "logits": logits,
        "gradients": {name: whole(parameter.grad) for name, parameter in named.items()},
        "local": {name: tuple(getattr(p, "_local_tensor", p).shape) for name, p in named.items()},
    }
    if dist.get_rank() == 0:
        torch.save(result, f"{folder}/result.pt")
dist.destroy_process_group()
if other:
    sys.exit(os.waitpid(other, 0)[1] != 0)
"""


def test_plan_of_llama() -> None:
    plan = low_rank_plan(LlamaConfig.base_model_tp_plan, lpa.LPAConfig(rank=9), layers=2)
    ups = {f"{ATTENTION}{role}_proj.up": "colwise" for role in "qkv"}
    assert plan == {**ups, f"{ATTENTION}o_proj.down": "rowwise", **MLP}


def test_plans_where_only_something_is_low_rank() -> None:
    only_q = low_rank_plan(LlamaConfig.base_model_tp_plan, lpa.LPAConfig(rank=9, targets=("q",)), layers=2)
    assert f"{ATTENTION}q_proj.up" in only_q
    assert f"{ATTENTION}q_proj" not in only_q
    assert only_q[f"{ATTENTION}o_proj"] == "rowwise"
    some_layers = low_rank_plan(LlamaConfig.base_model_tp_plan, lpa.LPAConfig(rank=9, layers=(0,)), layers=2)
    assert some_layers == MLP  # one plan cannot fit both layers: attention stays whole
    all_layers = low_rank_plan(LlamaConfig.base_model_tp_plan, lpa.LPAConfig(rank=9, layers=(0, 1)), layers=2)
    assert f"{ATTENTION}o_proj.down" in all_layers
    phi3 = low_rank_plan(Phi3Config.base_model_tp_plan, lpa.LPAConfig(rank=9, targets=("q", "v")), layers=2)
    assert phi3[f"{ATTENTION}qkv_proj.q.up"] == "colwise_gather_output"
    assert phi3[f"{ATTENTION}qkv_proj.k"] == "colwise_gather_output"
    assert f"{ATTENTION}qkv_proj" not in phi3


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    configs = {
        "llama": LlamaConfig(**SIZES, num_key_value_heads=2),
        "qwen3": Qwen3Config(**SIZES, head_dim=8, num_key_value_heads=2),
        "gpt_neox": GPTNeoXConfig(**SIZES),
        "phi3": Phi3Config(**SIZES, pad_token_id=0, eos_token_id=1, bos_token_id=1),
    }
    models = {}
    ids = torch.randint(2, 64, (2, 40))  # tokens enough for the stacked product
    for name, config in configs.items():
        models[name] = lpa.apply_lpa(
            AutoModelForCausalLM.from_config(config), lpa.LPAConfig(rank=9, init="matched")
        )
        models[name].eval().save_pretrained(tmp_path / name)
        torch.save(ids, tmp_path / name / "ids.pt")
    _two_processes(tmp_path, [str(tmp_path / name) for name in models])
    for name, model in models.items():
        result = torch.load(tmp_path / name / "result.pt")
        outputs = model(ids, labels=ids)
        outputs.loss.backward()
        torch.testing.assert_close(result["logits"], outputs.logits.detach(), atol=1e-5, rtol=1e-5)
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(
                result["gradients"][key], parameter.grad, atol=1e-5, rtol=1e-4, msg=key
            )
        shared = [
            shape
            for key, shape in result["local"].items()
            if key.endswith(("q.up.weight", "q_proj.up.weight"))
        ]
        assert shared == [(16, 9), (16, 9)]  # half of B, which has 32 rows
        rowwise = [
            shape
            for key, shape in result["local"].items()
            if key.endswith(("o_proj.down.weight", "dense.down.weight"))
        ]
        assert rowwise == [(9, 16), (9, 16)]  # half of A: the sum over processes carries 9 numbers, not 32


def _two_processes(folder: Path, arguments: list[str]) -> None:
    script = folder / "process.py"
    script.write_text(PROCESS, encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, str(script), *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if ended.returncode:
        pytest.fail(ended.stderr[-4000:])
