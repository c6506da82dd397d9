"""Build every package, install each wheel alone in a clean environment, and see that it works there.

    python tools/check_wheels.py [PACKAGE ...]

"Alone" is the wheel, the workspace's other wheels where it requires them, and the index; third-party
versions are those of uv.lock. In the core install every public name imports, the command answers `--help`,
the README's Python examples run (one of them at least; those that name a model of the hub are left to the
package's tests), nothing is there that the core requirements do not lead to, and a paper has none of the
ground packages. Then a paper's `reproduce` extra is added, its experiment must load, and the examples that
need an extra must run. Every other extra must resolve.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / "tools" / "uv"
GROUND = {"tenfold", "lmlab"}

IMPORT_EVERYTHING = """
import importlib, sys
package = importlib.import_module(sys.argv[1])
for name in package.__all__:
    try:
        getattr(package, name)
    except ImportError as error:  # what an extra brings may be missing, if the message names the extra
        if "pip install" not in str(error):
            raise
"""
LOAD_EXPERIMENT = "import sys, tenfold; print(tenfold.find_experiment(sys.argv[1]).title)"
RUN_EXAMPLES = """
import json
names, lacking = {}, []
for example in json.load(open("examples.json")):
    try:
        exec(example, names)
    except ImportError as error:
        lacking.append((example, str(error)))
print("\\n" + json.dumps(lacking))
"""
OF_THE_HUB = ("HuggingFaceTB/", "Qwen/", "Windy0822/", '"omnirl/mini"')
"""What an example names that would fetch a model: the package's tests run it, with a small model instead."""
SMALLER = {
    '"docs"': '"file:text.jsonl"',
    "max_steps=200": "max_steps=2",
    "num_hidden_layers=12": "num_hidden_layers=2",
    'preset("tiny")': 'preset("tiny", vocab_size=99, hidden_size=64, num_hidden_layers=2)',
    '"tasks": 4096': '"tasks": 4',
    "updates=1300, batch_size=32": "updates=1, batch_size=2",
}
"""What runs in seconds, by what an example says: the tests of the packages make it small in the same way."""


class CheckError(Exception):
    """A wheel is not as it should be; the message says what is wrong."""


@dataclass(frozen=True)
class Wheel:
    """A built wheel of a workspace package."""

    path: Path
    package: Path
    project: dict[str, Any]

    @property
    def name(self) -> str:
        """The distribution's name, normalised."""
        return canonicalize_name(self.project["name"])

    @property
    def module(self) -> str:
        """The name that is imported, which is not always the distribution's."""
        (found,) = (path.parent.name for path in self.package.glob("src/*/__init__.py"))
        return found

    @property
    def is_paper(self) -> bool:
        """Whether it declares an experiment."""
        return "tenfold.experiments" in self.project.get("entry-points", {})

    def metadata(self) -> Message:
        """Return METADATA."""
        with zipfile.ZipFile(self.path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return HeaderParser().parsestr(archive.read(name).decode())


def main() -> int:
    """Check the packages named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Install each package's wheel alone and see that it works.")
    parser.add_argument("packages", nargs="*", help="folders under packages/; default: all")
    chosen = parser.parse_args().packages
    failed = []
    # Inside the workspace, so that uv can link files from its cache as it does for .venv.
    with tempfile.TemporaryDirectory(prefix=".venv-wheels-", dir=ROOT) as temporary:
        scratch = Path(temporary)
        wheels = build(scratch)
        write_constraints(scratch, wheels)
        names = [wheel.package.name for wheel in wheels]
        if unknown := set(chosen) - set(names):
            parser.error(f"no package {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
        # Environments follow each other at the same places, and what Python compiled of a library there,
        # kept outside them, serves the next one. Nothing else is shared.
        os.environ["PYTHONPYCACHEPREFIX"] = str(scratch / "compiled")
        places: SimpleQueue[Path] = SimpleQueue()
        jobs = min(os.cpu_count() or 1, len(wheels))
        for number in range(jobs):
            places.put(scratch / f"venv-{number}")

        def check_one(wheel: Wheel) -> tuple[Wheel, int, str, float]:
            place, start = places.get(), time.monotonic()
            try:
                return wheel, check(wheel, scratch, place), "ok", time.monotonic() - start
            except CheckError as error:
                return wheel, 0, f"FAILED: {error}", time.monotonic() - start
            finally:
                places.put(place)

        print(f"{'package':<24}{'wheel':>9}{'installed':>11}{'time':>9}  result")
        wanted = [wheel for wheel in wheels if not chosen or wheel.package.name in chosen]
        with ThreadPoolExecutor(jobs) as pool:
            for wheel, count, result, seconds in pool.map(check_one, wanted):
                size = f"{wheel.path.stat().st_size / 1024:.0f} KiB"
                print(f"{wheel.name:<24}{size:>9}{count:>11}{seconds:>7.1f} s  {result}", flush=True)
                if result != "ok":
                    failed.append(wheel.name)
    return 1 if failed else 0


def build(scratch: Path) -> list[Wheel]:
    """Build all packages, each wheel from its source distribution, as an index would be given them."""
    run(UV, "build", "--all-packages", "--quiet", "--out-dir", scratch / "dist")
    wheels = []
    for pyproject in sorted(ROOT.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        stem = project["name"].replace("-", "_")
        path = next((scratch / "dist").glob(f"{stem}-{project['version']}-*.whl"), None)
        if path is None:
            raise SystemExit(f"uv build made no wheel of {project['name']} {project['version']}")
        wheels.append(Wheel(path, pyproject.parent, project))
    return wheels


def write_constraints(scratch: Path, wheels: Iterable[Wheel]) -> None:
    """Third-party versions are those of the lock; ours are the wheels, whatever an index has."""
    flags = ("--frozen", "--quiet", "--all-packages", "--all-extras", "--no-extra", "vllm", "--no-hashes")
    locked = run(UV, "export", *flags, "--no-emit-workspace", "--no-header", "--no-annotate")
    ours = [f"{wheel.name} @ {wheel.path.as_uri()}\n" for wheel in wheels]
    (scratch / "constraints.txt").write_text("".join([*ours, locked]), encoding="utf-8")


def check(wheel: Wheel, scratch: Path, environment: Path) -> int:
    """Check one wheel in a new environment at that place; return how many distributions the core install has.

    Raises `CheckError`.
    """
    check_contents(wheel)
    run(UV, "venv", "--quiet", "--clear", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    install(python, scratch, wheel.name)
    core = installed(python)
    check_core(wheel, core)
    run(python, "-c", IMPORT_EVERYTHING, wheel.module)
    for command in wheel.project.get("scripts", {}):
        run(environment / "bin" / command, "--help")
    wanted = examples(wheel)
    lacking = run_examples(python, wanted)
    if len(lacking) == len(wanted):
        raise CheckError(f"no example of the README runs in the core install: {lacking}")
    for extra in wheel.project.get("optional-dependencies", {}):
        if extra == "reproduce" and wheel.is_paper:
            install(python, scratch, f"{wheel.name}[reproduce]")
            run(environment / "bin" / "tenfold", "list")
            for experiment in wheel.project["entry-points"]["tenfold.experiments"]:
                run(python, "-c", LOAD_EXPERIMENT, experiment)
            lacking = run_examples(python, list(lacking))
        else:
            install(python, scratch, f"{wheel.name}[{extra}]", "--dry-run")
    if lacking:
        raise CheckError(f"an example of the README does not run: {', '.join(lacking.values())}")
    return len(core)


def examples(wheel: Wheel) -> list[str]:
    """Return the Python examples of the README that fetch nothing, made small."""
    readme = (wheel.package / wheel.project["readme"]).read_text(encoding="utf-8")
    for said, small in SMALLER.items():
        readme = readme.replace(said, small)
    found = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    return [example for example in found if not any(name in example for name in OF_THE_HUB)]


def run_examples(python: Path, wanted: list[str]) -> dict[str, str]:
    """Run the examples one after another, as a reader would; return those that lack a library, and which.

    Raises `CheckError` if one fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [json.dumps({"text": f"Of {n} and {n * n}, in words: {n:b}."}) for n in range(2000)]
        Path(folder, "text.jsonl").write_text("\n".join(words), encoding="utf-8")
        Path(folder, "examples.json").write_text(json.dumps(wanted), encoding="utf-8")
        said = run(python, "-c", RUN_EXAMPLES, cwd=folder, TENFOLD_CACHE=folder)
    return dict(json.loads(said.splitlines()[-1]))


def check_contents(wheel: Wheel) -> None:
    """See that the wheel has every file, its licence, version and README, and is marked as typed.

    What is in C++ (src/native) is in the wheel as a library.
    """
    with zipfile.ZipFile(wheel.path) as archive:
        inside = set(archive.namelist())
    source = wheel.package / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and not {"__pycache__", "native"} & set(path.relative_to(source).parts)
    }
    if missing := files - inside:
        raise CheckError(f"the wheel lacks {', '.join(sorted(missing))}")
    if f"{wheel.module}/py.typed" not in inside:
        raise CheckError(f"{wheel.module}/py.typed is missing: type checkers would ignore its types")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in inside):
        raise CheckError("LICENSE is missing")
    metadata = wheel.metadata()
    if metadata["License-Expression"] != "Apache-2.0":
        raise CheckError(f"the licence is {metadata['License-Expression']}, not Apache-2.0")
    if metadata["Version"] != wheel.project["version"]:
        raise CheckError(f"version {metadata['Version']} is not that of pyproject.toml")
    readme = (wheel.package / wheel.project["readme"]).read_text(encoding="utf-8")
    if metadata["Description-Content-Type"] != "text/markdown" or not str(metadata.get_payload()).strip():
        raise CheckError("the README is not in the metadata")
    if not readme.startswith(f"# {wheel.name}"):
        raise CheckError(f"the README does not start with the title '# {wheel.name}'")


def check_core(wheel: Wheel, core: dict[str, list[str]]) -> None:
    """See that the core install has what the core requirements lead to, and nothing else.

    `core` maps every installed distribution to its requirements.
    """
    wanted = reachable(wheel.name, "", core)
    if surplus := core.keys() - wanted:
        raise CheckError(f"the core install drew in {', '.join(sorted(surplus))}")
    if wheel.is_paper and (ground := GROUND & wanted):
        raise CheckError(f"a paper's core needs {', '.join(sorted(ground))}: that is for the extra reproduce")
    direct = {canonicalize_name(Requirement(text).name) for text in wheel.project["dependencies"]}
    for extra, texts in wheel.project.get("optional-dependencies", {}).items():
        # A core requirement with extras of its own, as prime's implicit-prm[train], is no repetition.
        plain = [named for text in texts if not (named := Requirement(text)).extras]
        repeated = {canonicalize_name(named.name) for named in plain} & direct
        if repeated:
            raise CheckError(f"the extra {extra} names {', '.join(sorted(repeated))}, which the core has")


def reachable(name: str, extra: str, requirements: dict[str, list[str]]) -> set[str]:
    """Return the installed distributions that the requirements of `name[extra]` lead to, itself included."""
    seen: set[tuple[str, str]] = set()
    open_ = [(canonicalize_name(name), extra)]
    while open_:
        at = open_.pop()
        if at in seen or at[0] not in requirements:
            continue
        seen.add(at)
        for text in requirements[at[0]]:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": at[1]}):
                target = canonicalize_name(requirement.name)
                open_ += [(target, ""), *((target, canonicalize_name(e)) for e in requirement.extras)]
    return {found for found, _ in seen}


def installed(python: Path) -> dict[str, list[str]]:
    """Return the distributions of an environment with their requirements."""
    script = (
        "import json; from importlib.metadata import distributions as all_; "
        "print(json.dumps({d.name: d.requires or [] for d in all_()}))"
    )
    found = json.loads(run(python, "-c", script))
    return {canonicalize_name(name): requires for name, requires in found.items()}


def install(python: Path, scratch: Path, requirement: str, *flags: str) -> None:
    """Install a requirement; workspace packages come from the wheels."""
    versions = ("--constraints", scratch / "constraints.txt")
    run(UV, "pip", "install", "--quiet", "--python", python, *versions, *flags, requirement)


def run(*command: str | Path, cwd: str = "/", **variables: str) -> str:
    """Run a command outside the workspace, with more environment variables, and return its output.

    Raises `CheckError` with the end of what it said if it fails.
    """
    place = ROOT if command[0] == UV else cwd
    done = subprocess.run(command, cwd=place, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        words = [Path(command[0]).name, *(str(word).strip().partition("\n")[0] for word in command[1:])]
        raise CheckError(f"`{' '.join(words)}` failed ({done.returncode}):\n{said}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
