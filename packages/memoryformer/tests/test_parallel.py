"""Two processes compute what one does: tables split by columns or chunks, FSDP2, int8."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError
from memoryformer.layers import MemoryBlock, MemoryLayer
from memoryformer.parallel import TableParallel, clip_grad_norm_, plan
from memoryformer.quantization import quantize_tables_
from memoryformer.statistics import bucket_stats
from memoryformer.training import param_groups

pytestmark = pytest.mark.slow

PROCESS = """
import os
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import parallelize_module
from memoryformer import MemoryFormerError, bucket_stats, param_groups, parallel
from memoryformer.layers import MemoryBlock, MemoryLayer

def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

def step(model, x, clip):
    optimizer = torch.optim.AdamW(param_groups(model), lr=0.1, foreach=True)
    y = model(x)
    y.square().mean().backward()
    gradients = {name: whole(p.grad).clone() for name, p in model.named_parameters()}
    norm = whole(clip(model))
    optimizer.step()
    return {
        "y": y.detach(),
        "gradients": gradients,
        "norm": norm,
        "weights": {name: whole(p).detach() for name, p in model.named_parameters()},
        "held": {name: tuple(p.to_local().shape if isinstance(p, DTensor) else p.shape)
                 for name, p in model.named_parameters()},
    }

folder = sys.argv[1]
other = os.fork()  # when all is imported, which takes seconds: now there are two processes
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
dist.init_process_group("gloo")
rank = dist.get_rank()
mesh = init_device_mesh("cpu", (2,))
load = lambda name: torch.load(f"{folder}/{name}.pt", weights_only=False)
x, results = load("x"), {}

for split in ("columns", "chunks"):
    model = parallelize_module(load("model"), mesh, parallel.plan(load("model"), split))
    buckets = {name: stats.counts for name, stats in bucket_stats(model, x).items()}
    results[split] = step(model, x, lambda model: parallel.clip_grad_norm_(model, 1.0)) | {"buckets": buckets}
    int8 = parallelize_module(load("int8"), mesh, parallel.plan(load("int8"), split))
    results[split]["int8"] = int8(x).detach()

layer = load("model")[-1]
parallelize_module(layer, mesh, parallel.plan(layer))
results["alone"] = layer(x).detach()
half = DTensor.from_local(x.chunk(2)[rank], mesh, [Shard(0)])
results["from halves"] = layer(half).detach()

model = load("model")
for child in model:
    if isinstance(child, MemoryBlock | MemoryLayer):
        fully_shard(child, mesh=mesh)
fully_shard(model, mesh=mesh)
results["fsdp"] = step(
    model, x.chunk(2)[rank], lambda model: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
)

# No plan: tokens split over the processes, with whole tables.
tables = DTensor.from_local(layer.tables.full_tensor().detach(), mesh).requires_grad_()
z = DTensor.from_local(x.chunk(2)[rank].flatten(0, 1).unflatten(-1, (4, 4)), mesh,
                       [Shard(0)])
y = torch.ops.memoryformer.lookup(z, tables, None, None, "scaled", 1.0)[0]
y.sum().backward()
results["tokens"] = {"y": y.full_tensor().detach(), "gradient": tables.grad.full_tensor(),
                     "placement": str(y.placements)}

odd = MemoryLayer(12, 6, 4)
try:
    parallelize_module(odd, mesh, parallel.plan(odd, "chunks"))
except MemoryFormerError as error:
    results["odd"] = str(error)

if rank == 0:
    torch.save(results, f"{folder}/results.pt")
dist.destroy_process_group()
if other:
    sys.exit(os.waitpid(other, 0)[1] != 0)
"""


LANGUAGE_MODEL = """
import copy
import os
import sys
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.testing import assert_close
import memoryformer as mf

other = os.fork()  # when all is imported, which takes seconds: now there are two processes
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
config = mf.MemoryFormerConfig(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, tau=4
)
torch.manual_seed(0)
one = mf.MemoryFormerForCausalLM(config).double()
ids = torch.randint(64, (4, 20))
expected = one(ids, labels=ids)
expected.loss.backward()

def compare(model, ids, logits):
    output = model(ids, labels=ids)
    output.loss.backward()
    assert_close(output.logits, logits)
    for (name, p), q in zip(model.named_parameters(), one.parameters(), strict=True):
        grad = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
        assert_close(grad, q.grad, rtol=1e-6, atol=1e-12, msg=name)

def copied():
    model = copy.deepcopy(one)
    model.zero_grad()
    return model

for split in ("columns", "chunks"):
    model = parallelize_module(copied(), mesh, mf.parallel.plan(one, split))
    compare(model, ids, expected.logits)
    settings = {"max_new_tokens": 8, "do_sample": False}
    assert torch.equal(model.generate(ids[:1, :5], **settings), one.generate(ids[:1, :5], **settings))

model = copied()
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
half = dist.get_rank()
compare(model, ids.chunk(2)[half], expected.logits.chunk(2)[half])
dist.destroy_process_group()
if other:
    sys.exit(os.waitpid(other, 0)[1] != 0)
"""


def stack() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 16),
        MemoryBlock(16, tau=4, expand_bits=1, init_std=1.0),
        nn.LayerNorm(16),
        MemoryLayer(16, 6, 4, init_std=1.0),
    )
    return model.double()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(6, 5, 16, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, x: Tensor) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("parallel")
    torch.save(x, folder / "x.pt")
    torch.save(stack(), folder / "model.pt")
    torch.save(quantize_tables_(stack()).eval(), folder / "int8.pt")
    _two_processes(folder, PROCESS)
    return torch.load(folder / "results.pt", weights_only=False)


@pytest.fixture(scope="module")
def one(x: Tensor) -> dict[str, Any]:
    """The same step in one process, by torch alone."""
    model = stack()
    optimizer = torch.optim.AdamW(param_groups(model), lr=0.1)
    y = model(x)
    y.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return {"y": y.detach(), "gradients": gradients, "norm": norm, "weights": weights}


@pytest.mark.parametrize("how", ["columns", "chunks", "fsdp"])
def test_forward_backward_clipping_and_one_step_equal_one_process(results, one, how):
    found = results[how]
    expected = one["y"].chunk(2)[0] if how == "fsdp" else one["y"]
    torch.testing.assert_close(found["y"], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found["norm"], one["norm"], rtol=1e-9, atol=0)
    assert one["norm"] > 1  # so that clipping did something
    for part in ("gradients", "weights"):
        assert found[part].keys() == one[part].keys()
        for name, tensor in one[part].items():
            torch.testing.assert_close(found[part][name], tensor, rtol=1e-6, atol=1e-9, msg=f"{part} {name}")


def test_each_process_holds_half_of_the_tables(results):
    assert results["columns"]["held"]["3.tables"] == (4, 16, 3)
    assert results["columns"]["held"]["3.bias"] == (3,)
    assert results["chunks"]["held"]["3.tables"] == (2, 16, 6)
    assert results["fsdp"]["held"]["3.tables"] == (2, 16, 6)
    assert results["chunks"]["held"]["0.weight"] == (16, 16)


@pytest.mark.parametrize("split", ["columns", "chunks"])
def test_split_models_give_the_same_buckets_and_int8_the_same_outputs(results, x, split):
    expected = bucket_stats(stack(), x)
    assert results[split]["buckets"].keys() == expected.keys()
    assert all(torch.equal(results[split]["buckets"][name], expected[name].counts) for name in expected)
    y = quantize_tables_(stack()).eval()(x)
    torch.testing.assert_close(results[split]["int8"], y, rtol=1e-9, atol=1e-12)


def test_a_layer_alone_can_be_split_and_takes_inputs_that_are_split(results, x):
    expected = stack()[-1](x).detach()
    torch.testing.assert_close(results["alone"], expected)
    torch.testing.assert_close(results["from halves"], expected)


def test_tokens_may_be_split_without_a_plan(results, x):
    layer = stack()[-1]
    layer.bias.data.zero_()
    y = layer(x)
    y.sum().backward()
    assert "Shard(dim=0)" in results["tokens"]["placement"]
    torch.testing.assert_close(results["tokens"]["y"], y.detach().flatten(0, 1))
    torch.testing.assert_close(results["tokens"]["gradient"], layer.tables.grad)


@pytest.mark.slow
def test_the_language_model_learns_and_generates_on_two_processes_as_on_one(tmp_path):
    pytest.importorskip("transformers")
    _two_processes(tmp_path, LANGUAGE_MODEL)


def test_mistakes_are_named(results):
    assert results["odd"].startswith("2 processes do not divide the 3 chunks of MemoryLayer(12, 6, tau=4")
    with pytest.raises(MemoryFormerError, match="split is 'rows'; it may be 'columns' or 'chunks'"):
        plan(stack(), "rows")
    with pytest.raises(MemoryFormerError, match="Linear has no MemoryLayer"):
        plan(nn.Linear(4, 4))
    with pytest.raises(MemoryFormerError, match="TableParallel splits memory layers, not Linear"):
        TableParallel()._apply(nn.Linear(4, 4), None)


def test_clipping_without_gradients_finds_a_norm_of_0():
    assert clip_grad_norm_(stack(), 1.0) == 0


def test_the_plan_names_every_memory_layer():
    assert list(plan(stack())) == ["1.layer1", "1.layer2", "3"]


def _two_processes(folder: Path, program: str) -> None:
    script = folder / "process.py"
    script.write_text(program, encoding="utf-8")
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
    command = [sys.executable, str(script), str(folder)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if ended.returncode:
        pytest.fail(ended.stderr[-4000:])
