"""Compiling ahead of time sees spills, shared memory and tensor cores, and refuses what it cannot do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

# Kernels made to go wrong: `hungry` keeps many numbers a thread alive, `product` may need much shared memory.
SCRIPT = """
import json, sys
from dataclasses import asdict
import triton, triton.language as tl
from fope_triton import aot
from fope_triton.tiles import CompileSpec


@triton.jit
def copy(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y + at, tl.load(x + at))


@triton.jit
def hungry(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    numbers = tl.load(x + at)
    for i in range(10):
        numbers = numbers * tl.load(x + at + i) + tl.sum(numbers, 0)
    tl.store(y + at, numbers)


@triton.jit
def product(x, y, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    a = tl.load(x + at)
    tl.store(y + at, tl.dot(a, tl.trans(a)))


def row(fn, dtype, size, target):
    types = {"x": "*" + dtype, "y": "*fp32" if fn is product else "*" + dtype}
    options = {"num_warps": 4}
    spec = CompileSpec(fn.__name__, fn, types, {"N": size}, ("x", "y"), options, target, dtype, size)
    found = aot.compile_spec(spec)
    return asdict(found) | {"faults": found.faults()}


rows = [row(fn, *rest) for fn, *rest in (
    (copy, "fp32", 1024, "sm_80"), (copy, "fp32", 1024, "gfx942"),
    (hungry, "fp32", 32768, "sm_80"), (hungry, "fp32", 131072, "gfx942"),
    (product, "bf16", 64, "sm_80"), (product, "bf16", 64, "sm_90"), (product, "bf16", 64, "gfx942"),
    (product, "bf16", 256, "sm_86"),
)]
json.dump(rows, sys.stdout)
"""


def run(*arguments: str, interpret: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, str], dict[str, Any]]:
    script = (
        tmp_path_factory.mktemp("kernels") / "kernels.py"
    )  # Triton reads the source of a kernel from its file
    script.write_text(SCRIPT)
    done = run(str(script))
    assert done.returncode == 0, done.stderr
    return {(row["kernel"], row["head_dim"], row["target"]): row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("target", ["sm_80", "gfx942"])
def test_a_good_kernel_has_no_fault(rows: dict[Any, Any], target: str) -> None:
    row = rows["copy", 1024, target]
    assert row["faults"] == []
    assert row["spill_bytes"] == row["shared"] == 0
    assert 2 < row["regs"] < 64
    assert not row["tensor_core"]


@pytest.mark.parametrize(("size", "target"), [(32768, "sm_80"), (131072, "gfx942")])
def test_a_spill_is_seen(rows: dict[Any, Any], size: int, target: str) -> None:
    row = rows["hungry", size, target]
    assert row["spill_bytes"] > 0
    assert f"hungry fp32 d{size} on {target}: {row['spill_bytes']} bytes a thread spill" in row["faults"][0]


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942"])
def test_tensor_cores_are_seen(rows: dict[Any, Any], target: str) -> None:
    assert rows["product", 64, target]["tensor_core"]


def test_too_much_shared_memory_is_seen(rows: dict[Any, Any]) -> None:
    row = rows["product", 256, "sm_86"]
    assert row["shared"] > 101_376
    assert row["faults"][-1].endswith(f"{row['shared']} bytes of shared memory, the target has 101376")


def test_interpreted_kernels_are_refused() -> None:
    done = run("-m", "fope_triton.aot", interpret=True)
    assert done.returncode == 2
    assert "TRITON_INTERPRET is set" in done.stderr


def test_an_unknown_target_is_a_mistake() -> None:
    done = run("-m", "fope_triton.aot", "--targets", "sm_80,sm_1")
    assert done.returncode == 2
    assert "no target sm_1; there are: sm_80, sm_86, sm_90, sm_100, gfx942" in done.stderr


def test_every_tile_is_in_the_golden_table() -> None:
    """What is shipped and what is known to be sound are the same, before anything is compiled."""
    script = (
        "import json; from fope_triton.aot import entries;"
        "print(json.dumps([[s.name, s.dtype, s.head_dim, s.target] for s in entries()]))"
    )
    done = run("-c", script)
    assert done.returncode == 0, done.stderr
    shipped = [tuple(key) for key in json.loads(done.stdout)]
    golden = json.loads((Path(__file__).parent / "golden_kernels.json").read_text())["rows"]
    assert len(shipped) == len(set(shipped))
    assert set(shipped) == {(row["kernel"], row["dtype"], row["head_dim"], row["target"]) for row in golden}
    assert all(row["spill_bytes"] == 0 for row in golden)


def test_hopper_multiplies_by_wgmma() -> None:
    """Attention in 16 bits on sm_90, by its newest instructions, and with nothing in local memory.

    The one exception is named: the backward pass of keys with head_dim 256 has tiles of 32 by 32, for
    registers, and wgmma takes 64 rows.
    """
    script = (
        "import json, triton\n"
        "from fope_triton import aot, attention_bwd, attention_fwd\n"
        "compiled, texts = triton.compile, []\n"
        "def keep(*args, **options):\n"
        "    kernel = compiled(*args, **options)\n"
        "    texts.append(kernel.asm['ptx'])\n"
        "    return kernel\n"
        "aot.triton.compile = keep\n"
        "found = []\n"
        "for spec in attention_fwd.specs(['bf16']) + attention_bwd.specs(['bf16']):\n"
        "    if spec.target == 'sm_90' and 'delta' not in spec.name:\n"
        "        aot.compile_spec(spec)\n"
        "        words = ('wgmma.mma_async', 'mma.sync', 'ld.local')\n"
        "        found.append([spec.name, spec.head_dim, [word for word in words if word in texts[-1]]])\n"
        "print(json.dumps(found))"
    )
    done = run("-c", script)
    assert done.returncode == 0, done.stderr
    found = {(name, head_dim): words for name, head_dim, words in json.loads(done.stdout)}
    assert len(found) == 12
    assert found.pop(("attention_bwd_dkv", 256)) == ["mma.sync"]
    assert set(map(tuple, found.values())) == {("wgmma.mma_async",)}


@pytest.mark.long
def test_float16_compiles_as_bfloat16_does() -> None:
    """It has bfloat16's tiles; the check at every commit leaves it out."""
    script = (
        "from fope_triton import aot, attention_bwd, attention_fwd, cache, decode, rotate\n"
        "for module in (attention_bwd, attention_fwd, cache, decode, rotate):\n"
        "    for spec in module.specs(['fp16']):\n"
        "        if spec.target in ('sm_80', 'gfx942'):\n"
        "            found = aot.compile_spec(spec).faults()\n"
        "            assert not found, found\n"
    )
    done = run("-c", script)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("target", ["sm_80", "sm_86", "sm_90", "sm_100", "gfx942"])
def test_no_variant_of_attention_spills(target: str) -> None:
    """Causal or not, packed or not, queries rotated or not; the golden table has the one with all three."""
    script = (
        "import itertools\n"
        "from fope_triton import aot, attention_bwd, attention_fwd\n"
        "for causal, varlen, rotate_q in itertools.product((False, True), repeat=3):\n"
        "    specs = attention_fwd.specs(causal=causal, varlen=varlen, rotate_q=rotate_q)\n"
        "    if rotate_q:  # the backward kernels have no such switch\n"
        "        specs += attention_bwd.specs(causal=causal, varlen=varlen)\n"
        f"    for spec in (spec for spec in specs if spec.target == {target!r}):\n"
        "        found = aot.compile_spec(spec).faults()\n"
        "        assert not found, (causal, varlen, rotate_q, found)\n"
    )
    done = run("-c", script)
    assert done.returncode == 0, done.stderr
