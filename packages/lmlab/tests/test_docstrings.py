import importlib
import inspect
from pathlib import Path

import pytest

from lmlab import docstrings

SOURCE = '''"""Of the module."""
raise SystemExit("this source must never be run")
import sys
if sys.platform == "win32":
    def only_windows():
        "Single quotes count too."
else:
    async def elsewhere():
        """First line.

            indented by four

        Last line.
        """
        class Inner:
            """In a function."""
try:
    import nothing
except ImportError:
    class Outer:
        """Outer."""
        def method(self):
            r"""Raw \\d."""
        value = """not a docstring"""
def without():
    return """not a docstring"""
'''


def test_every_docstring_has_its_objects_full_name_and_no_indentation():
    assert docstrings.docstrings_in(SOURCE, "package.module") == [
        ("package.module", "Of the module."),
        ("package.module.only_windows", "Single quotes count too."),
        ("package.module.elsewhere", "First line.\n\n    indented by four\n\nLast line."),
        ("package.module.elsewhere.Inner", "In a function."),
        ("package.module.Outer", "Outer."),
        ("package.module.Outer.method", "Raw \\d."),
    ]


@pytest.mark.parametrize("name", ["json.decoder", "textwrap", "statistics", "email.message"])
def test_agrees_with_inspect_on_imported_objects(name: str):
    module = importlib.import_module(name)
    found = docstrings.docstrings_in(Path(str(module.__file__)).read_bytes(), name)
    compared = 0
    for full_name, text in found:
        value = module
        for part in full_name.removeprefix(name).split(".")[1:]:
            value = inspect.getattr_static(value, part, None)
        # `getdoc` inherits; an object's own docstring is what the source holds.
        if isinstance(getattr(value, "__doc__", None), str):
            assert text == inspect.cleandoc(value.__doc__), full_name
            compared += 1
    assert compared >= 5


def make_package(folder: Path, modules: int = 9) -> Path:
    package = folder / "toy"
    for part in ("", "inner", "tests", "inner/benchmarks"):
        (package / part).mkdir(parents=True, exist_ok=True)
        (package / part / "__init__.py").write_text(f'"""Folder {part or "toy"}."""\n')
    for number in range(modules):
        (package / f"m{number}.py").write_text(f'def f():\n    """Function {number}: é ☃."""\n', "utf-8")
    (package / "test_m0.py").write_text('"""A test."""\n')
    (package / "conftest.py").write_text('"""For tests."""\n')
    (package / "broken.py").write_text('"""Unfinished."""\ndef f(:\n')
    (package / "latin.py").write_bytes('# coding: latin-1\n"""Été."""\n'.encode("latin-1"))
    return package


def test_tests_and_benchmarks_are_not_source(tmp_path: Path):
    names = [name for name, _ in docstrings.source_files(make_package(tmp_path, modules=2))]
    assert names == ["toy", "toy.broken", "toy.inner", "toy.latin", "toy.m0", "toy.m1"]


def test_the_result_does_not_depend_on_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = docstrings.source_files(make_package(tmp_path))
    expected = (
        [("toy", "Folder toy."), ("toy.inner", "Folder inner."), ("toy.latin", "Été.")]
        + [(f"toy.m{number}.f", f"Function {number}: é ☃.") for number in range(9)],
        ["toy.broken"],
    )
    for cores, chunk in [(1, 10**6), (3, 1), (2, 200)]:
        monkeypatch.setattr(docstrings, "_cores", lambda cores=cores: cores)
        monkeypatch.setattr(docstrings, "_CHUNK_BYTES", chunk)
        seen: list[tuple[int, int]] = []
        assert docstrings.extract(files, lambda *progress, seen=seen: seen.append(progress)) == expected
        total = sum(path.stat().st_size for _, path in files)
        assert seen[-1] == (total, total)
        assert seen == sorted(seen)


def test_no_files_give_nothing():
    assert docstrings.extract([]) == ([], [])


def test_a_worker_process_needs_the_standard_library_alone(tmp_path: Path):
    # It runs with -I -S, so an import of anything installed would fail here.
    path = tmp_path / "m.py"
    path.write_text('"""Text."""\n')
    assert docstrings._extract_in_a_process([("m", str(path))]) == ([("m", "Text.")], [])
