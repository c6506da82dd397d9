"""Compile every shipped kernel ahead of time, for GPUs that need not be there, and say what each one uses.

    python -m PACKAGE.aot --targets sm_80,gfx942 --json

Triton's wheel brings the assemblers, so neither a GPU nor a driver nor a toolkit is needed. This file is the
same in every Triton package of the workspace (tools/tests compares them). It asks of its package: `tiles`
with `CompileSpec` and `TARGETS`, and a function `specs()` in every module that has kernels.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import os
import pkgutil
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Any

import triton
from triton.compiler import ASTSource

from .tiles import TARGETS, CompileSpec

PTXAS = {
    "regs": re.compile(r"Used (\d+) registers"),
    "stack": re.compile(r"(\d+) bytes stack frame"),
    "spilled": re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads"),
}
TENSOR_CORE = re.compile(r"wgmma\.mma_async|tcgen05\.mma|\bmma\.sync|v_mfma|v_wmma")


@dataclass(frozen=True)
class Row:
    """What one tile of one kernel uses on one target.

    `regs` are 32-bit registers a thread (on AMD vector registers), `shared` is bytes a block, `spill_bytes`
    what a thread keeps in local memory because registers did not suffice: spill stores and loads, or its
    stack.
    """

    kernel: str
    dtype: str
    head_dim: int
    target: str
    regs: int
    spill_bytes: int
    shared: int
    tensor_core: bool

    @property
    def title(self) -> str:
        """The tile and its target in words."""
        return f"{self.kernel} {self.dtype} d{self.head_dim} on {self.target}"

    def faults(self) -> list[str]:
        """Return why the tile cannot be shipped, in words; empty for a good one."""
        limit = TARGETS[self.target].max_shared
        found = []
        if self.spill_bytes:
            found.append(f"{self.title}: {self.spill_bytes} bytes a thread spill to local memory")
        if self.shared > limit:
            found.append(f"{self.title}: {self.shared} bytes of shared memory, the target has {limit}")
        return found


def entries() -> list[CompileSpec]:
    """Return the specifications of every module of this package: each shipped tile on each target, once."""
    package = importlib.import_module(__name__ if __package__ is None else __package__)
    found: list[CompileSpec] = []
    for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        module = importlib.import_module(f"{package.__name__}.{name}")
        found += getattr(module, "specs", list)()
    return found


def compile_spec(spec: CompileSpec) -> Row:
    """Compile one specification and read what the assembler says of it.

    Raises whatever Triton raises where a kernel does not compile.
    """
    names = spec.fn.arg_names
    constant = dict.fromkeys(spec.constexprs, "constexpr")
    # Aligned as the launcher finds real tensors to be; else loads are not vectorised.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in spec.aligned}
    source = ASTSource(
        fn=spec.fn,
        signature={name: constant.get(name) or spec.types[name] for name in names},
        constexprs=dict(spec.constexprs),
        attrs=aligned,
    )
    log = io.StringIO()
    with fresh_cache(), contextlib.redirect_stdout(log):
        kernel = triton.compile(source, target=TARGETS[spec.target].gpu, options=dict(spec.options))
    used = amd_use(kernel.asm["amdgcn"]) if "amdgcn" in kernel.asm else nvidia_use(log.getvalue())
    assembly = kernel.asm.get("ptx") or kernel.asm["amdgcn"]
    return Row(
        kernel=spec.name,
        dtype=spec.dtype,
        head_dim=spec.head_dim,
        target=spec.target,
        shared=kernel.metadata.shared,
        tensor_core=bool(TENSOR_CORE.search(assembly)),
        **used,
    )


@contextlib.contextmanager
def fresh_cache() -> Iterator[None]:
    """Triton's cache in an empty folder: the assembler speaks only when it runs."""
    with tempfile.TemporaryDirectory() as folder, triton.knobs.cache.scope(), triton.knobs.nvidia.scope():
        triton.knobs.cache.dir = folder
        triton.knobs.nvidia.dump_ptxas_log = True
        yield


def nvidia_use(log: str) -> dict[str, int]:
    """Return registers and spilled bytes from what `ptxas -v` said."""
    found = {name: pattern.findall(log) for name, pattern in PTXAS.items()}
    if not found["regs"]:
        raise RuntimeError(f"ptxas named no registers; it said: {log[-500:]!r}")
    spilled = max((int(stores) + int(loads) for stores, loads in found["spilled"]), default=0)
    return {
        "regs": max(map(int, found["regs"])),
        "spill_bytes": max([spilled, *map(int, found["stack"])]),
    }


def amd_use(assembly: str) -> dict[str, int]:
    """Return registers and spilled bytes from the metadata in AMD's assembly."""

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", assembly)
        if found is None:
            raise RuntimeError(f"AMD's assembly does not name {name}")
        return int(found[1])

    spilled = max(4 * number("vgpr_spill_count"), number("private_segment_fixed_size"))
    return {"regs": number("vgpr_count"), "spill_bytes": spilled}


def compile_entry(index: int) -> Row:
    """Compile the entry of that number; what a worker process is given, as kernels do not travel."""
    return compile_spec(_entries()[index])


_known: list[CompileSpec] = []


def _entries() -> list[CompileSpec]:
    if not _known:
        _known.extend(entries())
    return _known


def compile_all(targets: Sequence[str], jobs: int, every: int = 1) -> tuple[list[Row], list[str]]:
    """Compile what is shipped for the targets, or one of `every` so many; return rows and what went wrong."""
    wanted = [index for index, spec in enumerate(_entries()) if spec.target in targets][::every]
    rows: dict[int, Row] = {}
    faults = []
    # Not forked: the parent has threads of torch and LLVM.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(compile_entry, index): index for index in wanted}
        for done, future in enumerate(as_completed(running), start=1):
            spec = _entries()[running[future]]
            title = f"{spec.name} {spec.dtype} d{spec.head_dim} on {spec.target}"
            show_progress(done, len(wanted), title)
            try:
                rows[running[future]] = future.result()
            except Exception as error:  # one that does not compile must not hide the others
                faults.append(f"{title}: does not compile: {type(error).__name__}: {error}")
    ordered = [rows[index] for index in sorted(rows)]
    return ordered, faults + [fault for row in ordered for fault in row.faults()]


def show_progress(done: int, total: int, title: str) -> None:
    """Say how far it is on a terminal; in a log, a line every fifty."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{done}/{total} {title}" + ("\n" if done == total else ""))
        sys.stderr.flush()
    elif done % 50 == 0 or done == total:
        print(f"compiled {done} of {total}", file=sys.stderr, flush=True)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    head = ("kernel", "dtype", "head_dim", "target", "regs", "spill_bytes", "shared", "tensor_core")
    cells = [head, *(tuple(str(value) for value in asdict(row).values()) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            value.ljust(w) if i in (0, 1, 3, 7) else value.rjust(w)
            for i, (value, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; an unknown target ends the program with code 2."""
    program = f"python -m {__package__}.aot"
    parser = argparse.ArgumentParser(
        prog=program, description="Compile every shipped kernel; no GPU is needed."
    )
    parser.add_argument("--targets", default=",".join(TARGETS), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON, a row a tile")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes; default: %(default)s"
    )
    parser.add_argument("--every", type=int, default=1, help="compile one of so many; default: all")
    chosen = parser.parse_args(arguments)
    chosen.targets = chosen.targets.split(",")
    if unknown := [name for name in chosen.targets if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    if chosen.jobs < 1:
        parser.error(f"--jobs is {chosen.jobs}; it must be at least 1")
    if chosen.every < 1:
        parser.error(f"--every is {chosen.every}; it must be at least 1")
    if triton.knobs.runtime.interpret:
        parser.error("TRITON_INTERPRET is set, and an interpreted kernel cannot be compiled: unset it")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print the table; return 1 if a tile does not compile, spills or needs too much shared."""
    chosen = parse(arguments)
    rows, faults = compile_all(chosen.targets, chosen.jobs, chosen.every)
    if chosen.json:
        shown: Any = [asdict(row) for row in rows]
        print("[\n" + ",\n".join(json.dumps(row) for row in shown) + "\n]")
    else:
        print(table(rows))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
