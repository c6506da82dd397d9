"""Compile every shipped kernel, for GPUs that need not be there, and compare with the golden table.

    python tools/kernel_check.py [PACKAGE ...] [--targets sm_80,gfx942] [--all] [--update]

Where the sources of a package are those that its golden table was made of, by the same Triton, the table is
what compiling gives: then one of eight tiles is compiled, over all targets, to see that it does. `--all`
compiles all of them.

A package is found by its entry point in the group `tenfold.kernels`; its `aot` module runs in a process of
its own. Fails where a tile does not compile, spills, has too much shared memory, lacks tensor cores in 16-bit
attention, or uses over 10% more registers or shared memory than the package's tests/golden_kernels.json says.
After a change that is meant, `--update` writes that file.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import entry_points, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUP = "tenfold.kernels"
TARGETS = ("sm_80", "sm_86", "sm_90", "sm_100", "gfx942")
MOST_RISE = 0.10
SPOT_CHECK = 8
"""One of so many tiles is compiled where nothing changed; five targets do not divide it, so all have some."""
SIXTEEN_BIT = ("bf16", "fp16")


class CheckError(Exception):
    """The check cannot be made; the message says why and what to do."""


@dataclass(frozen=True)
class Row:
    """What one tile of one kernel uses on one target, as `aot` prints it."""

    kernel: str
    dtype: str
    head_dim: int
    target: str
    regs: int
    spill_bytes: int
    shared: int
    tensor_core: bool

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What names the tile."""
        return self.kernel, self.dtype, self.head_dim, self.target

    @property
    def title(self) -> str:
        """The name in words."""
        return f"{self.kernel} {self.dtype} d{self.head_dim} on {self.target}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the packages named on the command line, or all; return the exit code."""
    parser = argparse.ArgumentParser(description="Compile all kernels ahead of time; no GPU is needed.")
    parser.add_argument("packages", nargs="*", help="default: all that have kernels")
    parser.add_argument("--targets", default=",".join(TARGETS), help="default: %(default)s")
    parser.add_argument("--all", action="store_true", help="compile all tiles, though no source changed")
    parser.add_argument("--update", action="store_true", help="compile all and write the golden tables")
    chosen = parser.parse_args(arguments)
    modules = find_packages()
    if unknown := set(chosen.packages) - modules.keys():
        parser.error(f"no kernels in {', '.join(sorted(unknown))}; there are some in: {', '.join(modules)}")
    targets = chosen.targets.split(",")
    failed = []
    for package in chosen.packages or modules:
        try:
            whole = chosen.all or chosen.update or has_changed(package)
            faults = check(package, modules[package], targets, chosen.update, 1 if whole else SPOT_CHECK)
        except CheckError as error:
            faults = [str(error)]
        for fault in faults:
            print(f"error: {package}: {fault}", file=sys.stderr)
        failed += faults
    return 1 if failed else 0


def find_packages() -> dict[str, str]:
    """Return each package with kernels, and the module that compiles them."""
    return {entry.name: entry.module for entry in sorted(entry_points(group=GROUP))}


def check(package: str, module: str, targets: Sequence[str], update: bool, every: int = 1) -> list[str]:
    """Compile one package's kernels, or one of `every` so many, print the table, and return what is wrong.

    Raises `CheckError` if they could not be compiled, or there is nothing to compare with.
    """
    start = time.monotonic()
    rows, sound = compile_rows(module, targets, every)
    print(table(rows))
    which = "" if every == 1 else f", one of {every}: no source changed since the golden table"
    print(f"{package}: {len(rows)} tiles in {time.monotonic() - start:.0f} s{which}")
    faults = [] if sound else ["a tile does not compile, spills or needs too much shared memory: see above"]
    faults += missing_tensor_cores(rows)
    path = golden_path(package)
    if update:
        if faults:
            return [*faults, f"{path.relative_to(ROOT)} is left as it was"]
        write_golden(path, rows, targets, sources(package))
        return []
    return faults + compare(rows, read_golden(path), targets, whole=every == 1)


def has_changed(package: str) -> bool:
    """Whether the golden table was made of other sources or by another Triton, or there is none."""
    path = golden_path(package)
    if not path.exists():
        return True
    content = json.loads(path.read_text(encoding="utf-8"))
    return bool((content["triton"], content.get("sources")) != (version("triton"), sources(package)))


def sources(package: str) -> str:
    """Return the SHA-256 of the Python files that a package's kernels are compiled from, with their names.

    Those are `aot`, the modules that have kernels, which have `specs()`, and those of the package that these
    import: not its operators, what they ask of their arguments, or the reference.
    """
    folder, digest = ROOT / "packages" / package / "src", hashlib.sha256()
    files = {path.stem: path for path in sorted(folder.rglob("*.py"))}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    waiting = [name for name, text in texts.items() if name == "aot" or "\ndef specs(" in text]
    used: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in texts and name not in used:
            used.add(name)
            waiting += imported(texts[name])
    for name in sorted(used):
        path = files[name].relative_to(folder).as_posix()
        digest.update(f"{path}\0{texts[name]}\0".encode())
    return digest.hexdigest()


def imported(text: str) -> list[str]:
    """Return the last names of the modules that a file imports, and the names that it takes from them."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [alias.name.rpartition(".")[2] for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module.rpartition(".")[2])
    return found


def compile_rows(module: str, targets: Sequence[str], every: int = 1) -> tuple[list[Row], bool]:
    """Run a package's `aot` module; return its rows and whether all were sound. Raises `CheckError`."""
    # Interpreted kernels cannot be compiled. Progress and the faults that it finds pass through to stderr.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", module, "--json", "--targets", ",".join(targets)]
    command += ["--every", str(every)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        raise CheckError(f"`python -m {module}` ended with code {done.returncode}")
    try:
        return [Row(**row) for row in json.loads(done.stdout)], done.returncode == 0
    except (ValueError, TypeError) as error:
        raise CheckError(f"`python -m {module} --json` printed no table: {error}") from error


def missing_tensor_cores(rows: Iterable[Row]) -> list[str]:
    """Return the attention kernels in 16 bits that multiply without tensor cores."""
    return [
        f"{row.title} does not use tensor cores"
        for row in rows
        if "attention" in row.kernel
        and multiplies(row.kernel)
        and row.dtype in SIXTEEN_BIT
        and not row.tensor_core
    ]


def multiplies(kernel: str) -> bool:
    """Whether a kernel has matrix products; the backward's preparation sums rows only."""
    return "delta" not in kernel


def compare(
    rows: Iterable[Row], golden: Iterable[Row], targets: Sequence[str], *, whole: bool = True
) -> list[str]:
    """Return where the rows use more than the golden table allows, and where the two name different tiles.

    Tiles that the rows lack are a fault if the rows are the `whole` of what was to be compiled.
    """
    known = {row.key: row for row in golden if row.target in targets}
    found = {row.key: row for row in rows}
    faults = [
        f"{row.title} has no golden row: run with --update" for key, row in found.items() if key not in known
    ]
    faults += [
        f"{row.title} is in the golden table and not shipped: run with --update"
        for key, row in known.items()
        if whole and key not in found
    ]
    for key in found.keys() & known.keys():
        for name in ("regs", "shared"):
            now, before = getattr(found[key], name), getattr(known[key], name)
            if now > before * (1 + MOST_RISE):
                faults.append(f"{found[key].title}: {name} rose from {before} to {now}, over 10%")
    return sorted(faults)


def golden_path(package: str) -> Path:
    """Return where a package's golden table is."""
    return ROOT / "packages" / package / "tests" / "golden_kernels.json"


def read_golden(path: Path) -> list[Row]:
    """Read a golden table. Raises `CheckError` if there is none, or another Triton made it."""
    if not path.exists():
        raise CheckError(f"there is no {path.name}: run with --update, look at it, and commit it")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["triton"] != version("triton"):
        raise CheckError(
            f"{path.name} was made by Triton {content['triton']}, this is {version('triton')}: "
            "run with --update and look at the difference"
        )
    return [Row(**row) for row in content["rows"]]


def write_golden(path: Path, rows: Iterable[Row], targets: Sequence[str], digest: str) -> None:
    """Write the rows of some targets, a row a line, and the sources' digest; rows of other targets stay.

    Then the digest is left out: the rows may be of other sources than those.
    """
    others = []
    if path.exists():
        content = json.loads(path.read_text(encoding="utf-8"))
        others = [Row(**row) for row in content["rows"] if row["target"] not in targets]
        if others and content["triton"] != version("triton"):
            raise CheckError(
                f"{path.name} was made by Triton {content['triton']}: update all targets together"
            )
    ordered = sorted([*others, *rows], key=lambda row: (row.key[:3], order(row.target)))
    lines = ",\n".join(f"  {json.dumps(asdict(row))}" for row in ordered)
    made = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(value)}"
        for name, value in (("triton", version("triton")), ("sources", "" if others else digest))
    )
    path.write_text(f'{{\n{made},\n"rows": [\n{lines}\n]\n}}\n', encoding="utf-8")


def order(target: str) -> tuple[int, str]:
    """The usual targets in their order, then others."""
    return TARGETS.index(target) if target in TARGETS else len(TARGETS), target


def table(rows: Iterable[Row]) -> str:
    """Return the rows as aligned text, with a heading."""
    names = [field.name for field in fields(Row)]
    lines = [names, *([str(value) for value in asdict(row).values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


if __name__ == "__main__":
    sys.exit(main())
