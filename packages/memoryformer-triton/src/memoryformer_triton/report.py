"""What each kernel uses on a GPU that need not be there: `aot_report`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import triton

from memoryformer_triton.backend import DTYPE_NAMES
from memoryformer_triton.checks import MOST_BITS
from memoryformer_triton.shipped import kernel_specs
from memoryformer_triton.tiles import TARGETS, CompileSpec

DTYPES = {str(dtype).removeprefix("torch."): name for dtype, name in DTYPE_NAMES.items() if name != "fp64"}
# ld.global.v4.b32 and the like; global_load_dwordx4 and the like.
NVIDIA = re.compile(r"\b(?:ld|st|red|atom)\.[\w.:]*global[\w.:]*?(?:\.v(\d+))?\.[bfsu](\d+)\b")
AMD = re.compile(r"\b(?:global|buffer)_(?:load|store)_[us]?(byte|short|dword)(?:x(\d))?")
AMD_BITS = {"byte": 8, "short": 16, "dword": 32}


def aot_report(
    arch: str = "sm_90", hidden: int = 1024, tau: int = 8, dtype: str | torch.dtype = "bfloat16"
) -> list[dict[str, Any]]:
    """Compile every kernel for tables [K, 2^tau, hidden] and say what it uses; no GPU is needed.

    `arch` is one of sm_80, sm_86, sm_90, sm_100 and gfx942; `dtype` that of the tables: bfloat16, float16,
    float32, or int8, which has the kernels of inference alone. Returns a dict a kernel: `kernel`, its name;
    `regs`, registers a thread; `spills`, bytes a thread in local memory; `shared`, bytes of shared memory a
    block; `max_access_bits`, the widest load or store of global memory. Raises `ValueError`.
    """
    name = str(dtype).removeprefix("torch.")
    if arch not in TARGETS:
        raise ValueError(f"unknown arch {arch!r}; there are {', '.join(TARGETS)}")
    if name not in DTYPES:
        raise ValueError(f"dtype is {name}; it must be one of {', '.join(DTYPES)}")
    if hidden < 1 or not 1 <= tau <= MOST_BITS:
        raise ValueError(
            f"hidden is {hidden} and tau is {tau}; hidden must be positive, tau from 1 to {MOST_BITS}"
        )
    # In a process of its own: where kernels are interpreted, as in tests, they cannot be compiled.
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    program = f"import sys; from {__name__} import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, arch, str(hidden), str(tau), DTYPES[name]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a kernel does not compile for {arch}:\n{done.stderr}")
    return json.loads(done.stdout)


def compile_kernel(spec: CompileSpec) -> dict[str, Any]:
    """Return the row of one kernel."""
    # Not above: `python -m memoryformer_triton.aot` wants to be the first to import it.
    from memoryformer_triton import aot

    texts: list[str] = []

    def keep(metadata_group: dict[str, str], **_: object) -> None:
        texts.extend(
            Path(path).read_text(encoding="utf-8")
            for name, path in metadata_group.items()
            if name.endswith((".ptx", ".amdgcn"))
        )

    with triton.knobs.compilation.scope():
        triton.knobs.compilation.listener = keep
        row = aot.compile_spec(spec)
    return {
        "kernel": row.kernel,
        "regs": row.regs,
        "spills": row.spill_bytes,
        "shared": row.shared,
        "max_access_bits": max(access_bits(texts[0])),
    }


def access_bits(assembly: str) -> list[int]:
    """Return the width of each load and store of global memory in PTX or AMD's assembly, in bits."""
    found = [int(count or 1) * int(bits) for count, bits in NVIDIA.findall(assembly)]
    return found or [int(count or 1) * AMD_BITS[kind] for kind, count in AMD.findall(assembly)]


def main(arguments: list[str]) -> None:
    """Print the rows that `aot_report` asks for, as JSON."""
    arch, hidden, tau, dtype = arguments
    specs = kernel_specs(arch, dtype, int(hidden), int(tau))
    print(json.dumps([compile_kernel(spec) for spec in specs]))
