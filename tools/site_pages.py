"""The site's pages about packages, made while mkdocs runs: a page from each README, and a reference.

A new package needs no edit here or in mkdocs.yml. Links in a README lead to files of the repository; what the
site has as a page is linked as that page, and what it does not have is a warning, which `make docs` fails on.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tenfold.report import report_page

logger = logging.getLogger("mkdocs.hooks")  # its warnings fail a strict build
ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
AS_THEY_ARE = ("CITATION.cff", "LICENSE")
LINK = re.compile(r'(\]\(|src="|href=")(?!https?:|mailto:|#)([^)"#\s]+)')
FLOORS = ("Papers", "Kernels", "Ground")
KERNEL_TABLE = "<!-- kernels -->"
CLAIMS = "results/index.html"  # the page that `tenfold report` makes, of the published runs
# The command line (cli, cli_options, ...), what it shows and the experiment are no interface to import from.
NOT_PUBLIC = re.compile(r"cli(_\w+)?|terminal|reproduce")


@dataclass(frozen=True)
class Package:
    """A package of the workspace and its two pages."""

    folder: Path

    @property
    def name(self) -> str:
        """The package's folder, for example `implicit-prm`."""
        return self.folder.name

    @property
    def project(self) -> dict[str, Any]:
        """What pyproject.toml says of the project."""
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    @property
    def module(self) -> str:
        """The name that is imported, which is neither always the folder's nor always the distribution's."""
        (found,) = (path.parent.name for path in self.folder.glob("src/*/__init__.py"))
        return found

    @property
    def floor(self) -> str:
        """`Papers` declare an experiment, `Kernels` what is compiled; the rest is `Ground`."""
        declared = self.project.get("entry-points", {})
        if "tenfold.experiments" in declared:
            return "Papers"
        compiled = "tenfold.kernels" in declared or (self.folder / "src" / "native").is_dir()
        return "Kernels" if compiled else "Ground"

    @property
    def page(self) -> str:
        """The page made of the README."""
        return f"packages/{self.name}.md"

    @property
    def tutorial(self) -> str:
        """The page of the tutorial, whose code runs when the site is built."""
        return f"tutorials/{self.name}.md"

    @property
    def has_tutorial(self) -> bool:
        """Whether it is written."""
        return (DOCS / self.tutorial).exists()

    @property
    def reference_page(self) -> str:
        """The page of the reference."""
        return f"reference/{self.name}.md"

    def reference(self) -> str:
        """Return the reference in Markdown: what can be imported, a section a module."""
        source = self.folder / "src" / self.module
        names = [
            f"{self.module}.{path.stem}"
            for path in sorted(source.iterdir())
            if (path.suffix == ".py" or (path / "__init__.py").exists())
            and not path.name.startswith("_")
            and not NOT_PUBLIC.fullmatch(path.stem)
        ]
        names += homes_below(self.module, source.parent)
        parts = [f"# {self.name}: reference\n", public_names(self.module, source.parent)]
        return "\n".join(parts + [f"::: {name}\n" for name in sorted(names)])


def public_names(module: str, source: Path) -> str:
    """Return a table of what `from module import ...` gives, each linked to its place below."""
    package = griffe.load(module, search_paths=[source])
    rows = [f"`from {module} import ...`\n", "| name | |", "|---|---|"]
    for name in package.exports or ():
        found = package[str(name)]
        if found.docstring:  # what has none is not in the reference
            summary = found.docstring.value.partition("\n")[0].replace("|", "&#124;")
            rows.append(f"| [`{name}`][{found.canonical_path}] | {summary} |")
        else:
            rows.append(f"| `{name}` | |")
    return "\n".join(rows) + "\n"


def homes_below(module: str, source: Path) -> list[str]:
    """Return modules below the first level that are public, or home to a name that is public."""
    package = griffe.load(module, search_paths=[source])
    homes = set()
    for name in package.exports or ():
        found = package[str(name)]
        if found.is_module:
            if found.canonical_path.count(".") > 1:  # the others are pages' sections already
                homes.add(found.canonical_path)
            continue
        home, _, own_name = found.canonical_path.rpartition(".")
        parent = home.rpartition(".")[0]
        if parent.count(".") and own_name not in (package[parent.removeprefix(f"{module}.")].exports or ()):
            homes.add(home)
    return sorted(homes)


def packages() -> list[Package]:
    """Return the workspace's packages, papers first, then kernels, then the ground."""
    found = [Package(path.parent) for path in sorted(ROOT.glob("packages/*/pyproject.toml"))]
    return sorted(found, key=lambda package: FLOORS.index(package.floor))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the packages into the navigation."""
    floors = itertools.groupby(packages(), key=lambda package: package.floor)
    config.nav = [
        {"Start": "index.md"},
        {"What held": CLAIMS},
        {"Tutorials": [{package.name: package.tutorial} for package in packages() if package.has_tutorial]},
        *({floor: [{package.name: package.page} for package in found]} for floor, found in floors),
        {
            "How it works": [
                {"Architecture": "architecture.md"},
                {"Kernels": "kernels.md"},
                {"Scaling out": "scaling-out.md"},
                {"Benchmarks": "benchmarks.md"},
                {"Adding a paper": "contributing.md"},
                {"When something fails": "errors.md"},
            ]
        },
        {"Reference": [{package.name: package.reference_page} for package in packages()]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of the repository's files."""
    for page, content in pages():
        files.append(File.generated(config, page, content=content))
    files.append(File.generated(config, CLAIMS, content=report_page(DOCS / "results", logger.warning)))
    for name in AS_THEY_ARE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put what the kernels use, from the golden tables, where a page has the mark for it."""
    return markdown.replace(KERNEL_TABLE, kernel_tables()) if KERNEL_TABLE in markdown else markdown


def kernel_tables() -> str:
    """Return a table a package with kernels: registers a thread and KiB of shared memory, by target."""
    parts = []
    for package in packages():
        path = package.folder / "tests" / "golden_kernels.json"
        if path.exists():
            golden = json.loads(path.read_text(encoding="utf-8"))
            heading = f"`{package.name}`, compiled by Triton {golden['triton']}; nothing spills.\n"
            parts.append(f"{heading}\n{kernel_table(golden['rows'])}\n")
    return "\n".join(parts)


def kernel_table(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown: a row a tile, a column a target. `▪` marks tensor cores."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    tiles: dict[tuple[str, str, int], dict[str, str]] = {}
    for row in rows:
        if row["spill_bytes"]:
            raise ValueError(f"a golden table has a kernel that spills: {row}")
        cell = f"{row['regs']} · {row['shared'] / 1024:.3g}{' ▪' if row['tensor_core'] else ''}"
        tiles.setdefault((row["kernel"], row["dtype"], row["head_dim"]), {})[row["target"]] = cell
    lines = [f"| kernel | dtype | head_dim | {' | '.join(targets)} |", "|---" * (3 + len(targets)) + "|"]
    for (kernel, dtype, head_dim), cells in tiles.items():
        found = " | ".join(cells.get(target, "") for target in targets)
        lines.append(f"| `{kernel}` | {dtype} | {head_dim} | {found} |")
    return "\n".join(lines)


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path and the Markdown of every made page."""
    sources = {"index.md": ROOT / "README.md", "contributing.md": ROOT / "CONTRIBUTING.md"}
    sources |= {package.page: package.folder / "README.md" for package in packages()}
    targets = {source: page for page, source in sources.items()} | {ROOT / name: name for name in AS_THEY_ARE}
    for page, source in sources.items():
        yield page, relink(source.read_text(encoding="utf-8"), source, page, targets)
    for package in packages():
        yield package.reference_page, package.reference()
    yield "benchmarks.md", benchmarks(DOCS / "benchmarks")


def benchmarks(folder: Path) -> str:
    """Return the page of the published benchmarks: what each script printed, as it is."""
    parts = [
        "# Benchmarks\n",
        "What the benchmarks printed on one machine, published as it is. `make bench` runs all of them,",
        "`make bench-<package>` one package's, and `tools/bench.py --publish` puts their outputs here.",
        "A script's docstring says what is compared with what. Ratios carry over to other machines better",
        "than times do. Nothing was run on a GPU.\n",
    ]
    for package in sorted(path for path in folder.glob("*") if path.is_dir()):
        parts.append(f"## {package.name}\n")
        for path in sorted(package.glob("*.txt")):
            script = path.stem.partition("-")[0]  # then options, which the heading has, or a machine
            parts.append(f"`packages/{package.name}/benchmarks/{script}.py`\n")
            parts.append(f"```text\n{path.read_text(encoding='utf-8').rstrip()}\n```\n")
    return "\n".join(parts)


def relink(text: str, source: Path, page: str, targets: dict[Path, str]) -> str:
    """Return the Markdown of the file `source` with its relative links as `page` of the site needs them."""

    def replace(match: re.Match[str]) -> str:
        file = Path(os.path.normpath(source.parent / match.group(2)))
        if file in targets:
            target = targets[file]
        elif file == DOCS / "results":
            target = CLAIMS
        elif file.parent == DOCS / "benchmarks":
            target = f"benchmarks.md#{file.name}"
        elif file.is_relative_to(DOCS):
            target = file.relative_to(DOCS).as_posix()
        else:
            return match.group()
        return match.group(1) + os.path.relpath(target, Path(page).parent).replace(os.sep, "/")

    return LINK.sub(replace, text)
