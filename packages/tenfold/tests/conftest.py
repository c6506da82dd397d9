"""A small paper, installed for one test: discovered by its entry point like any other."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("growth.py").read_text()

QUICK = """
steps = 12
[growth]
rate = 3.9
"""


@dataclass(frozen=True)
class Paper:
    """An installed paper: its entry point's name, its package, and the folder that is on the path."""

    name: str
    package: str
    site: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tenfold", *arguments]

    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.site), "OMP_NUM_THREADS": "1"}

    def tenfold(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the command in a process of its own."""
        return subprocess.run(
            self.command(*arguments),
            cwd=cwd,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(autouse=True)
def _light_trial_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spawned process imports the main module again; that of pytest is slow and nobody's trial needs it."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


_numbers = itertools.count()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Paper]:
    """Return a function that installs a paper: files by name, NAME and PACKAGE in them filled in."""

    def install(
        files: dict[str, str] | None = None, *, name: str = "growth", target: str = "EXPERIMENT"
    ) -> Paper:
        package = f"paper_{next(_numbers)}"  # modules of another test's paper must not be found instead
        site = tmp_path / "site"
        for file, text in ({"__init__.py": SOURCE, "quick.toml": QUICK} | (files or {})).items():
            path = site / package / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("NAME", name).replace("PACKAGE", package))
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[tenfold.experiments]\n{name} = {package}:{target}\n")
        monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return Paper(name, package, site)

    return install


@pytest.fixture
def source() -> str:
    """The module of the paper that `install` installs by default, to be changed."""
    return SOURCE


@pytest.fixture
def paper(install: Callable[..., Paper]) -> Paper:
    """The paper of `SOURCE`, installed under the name `growth`."""
    return install()


@pytest.fixture
def tenfold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command here, in `tmp_path`: (exit code, stdout, stderr)."""
    from tenfold.cli import main

    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["tenfold", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        written = capsys.readouterr()
        code = exit_.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), written.out, written.err

    return command


@dataclass
class Site:
    """A web site on this machine: what it serves by path, and what it was asked for."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    """An empty site, served while the test runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            served.headers.append(dict(self.headers))
            content = served.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield served
        server.shutdown()
        thread.join()
