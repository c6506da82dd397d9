"""The docstrings in Python source files, found by parsing, never by importing.

Parsing 140 MB of source takes most of a minute, so it is shared out among processes. They run this file as a
script: it needs the standard library alone, so they start in milliseconds, and unlike `multiprocessing` it
asks nothing of the caller's main module and works inside worker processes.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from inspect import cleandoc
from pathlib import Path
from typing import TypeAlias

Docstring: TypeAlias = tuple[str, str]
"""The full name of a module, class or function, and its docstring with the indentation taken out."""

TEST_FOLDERS = frozenset({"tests", "test", "testing", "_testing", "benchmarks"})
_CHUNK_BYTES = 4_000_000

_Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def source_files(package: Path) -> list[tuple[str, Path]]:
    """(module name, path) of a package's files in order of name, without its tests and benchmarks."""
    found = []
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        if not TEST_FOLDERS.intersection(parts) and not parts[-1].startswith(("test_", "conftest")):
            found.append((".".join(parts).removesuffix(".__init__"), path))
    return sorted(found)


def docstrings_in(source: str | bytes, module: str) -> list[Docstring]:
    """The docstrings of a module and of the classes and functions in it, in the order of the source.

    Raises `SyntaxError` if this version of Python cannot parse it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes are their authors' business
        tree = ast.parse(source)
    return [
        (name, cleandoc(text))
        for name, scope in _scopes(tree, module)
        if (text := ast.get_docstring(scope, clean=False))
    ]


def _scopes(node: ast.AST, name: str) -> Iterator[tuple[str, _Scope]]:
    if isinstance(node, _Scope):
        yield name, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _scopes(child, f"{name}.{child.name}")
        elif isinstance(child, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _scopes(child, name)


def extract(
    files: list[tuple[str, Path]], on_progress: Callable[[int, int], None] | None = None
) -> tuple[list[Docstring], list[str]]:
    """The docstrings of many files, in order of the files, and the modules that could not be parsed.

    `on_progress` gets the bytes parsed and the bytes in all. The result does not depend on the number of
    processes (one a core).
    """
    chunks = _chunks(files)
    total = sum(size for _, size in chunks)
    done = 0
    found: list[Docstring] = []
    unparsed: list[str] = []
    with ThreadPoolExecutor(_cores()) as threads:  # each thread waits for one process
        answers = threads.map(_extract_in_a_process, [chunk for chunk, _ in chunks])
        for (docstrings, failures), (_, size) in zip(answers, chunks, strict=True):
            found += docstrings
            unparsed += failures
            done += size
            if on_progress:
                on_progress(done, total)
    return found, unparsed


def _chunks(files: list[tuple[str, Path]]) -> list[tuple[list[tuple[str, str]], int]]:
    chunks: list[tuple[list[tuple[str, str]], int]] = []
    chunk: list[tuple[str, str]] = []
    size = 0
    for module, path in files:
        chunk.append((module, str(path)))
        size += path.stat().st_size
        if size >= _CHUNK_BYTES:
            chunks.append((chunk, size))
            chunk, size = [], 0
    return [*chunks, (chunk, size)] if chunk else chunks


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _extract_in_a_process(chunk: list[tuple[str, str]]) -> tuple[list[Docstring], list[str]]:
    # -I -S: no site-packages, and not this file's folder, whose modules are named like other libraries.
    command = [sys.executable, "-I", "-S", "-X", "utf8", __file__]
    answer = subprocess.run(command, input=json.dumps(chunk).encode(), stdout=subprocess.PIPE, check=True)
    docstrings, unparsed = json.loads(answer.stdout)
    return [(name, text) for name, text in docstrings], unparsed


def _main() -> None:
    gc.disable()  # syntax trees are many small objects; looking for cycles takes half of the time
    docstrings: list[Docstring] = []
    unparsed: list[str] = []
    for module, path in json.load(sys.stdin):
        source = Path(path).read_bytes()
        if b'"""' not in source and b"'''" not in source:
            continue  # as good as never a docstring, and these files are large tables
        try:
            docstrings += docstrings_in(source, module)
        except (SyntaxError, ValueError):  # ValueError: a null byte
            unparsed.append(module)
    json.dump((docstrings, unparsed), sys.stdout)


if __name__ == "__main__":
    _main()
