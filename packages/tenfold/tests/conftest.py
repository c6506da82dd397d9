"""A small paper, installed for one test: discovered by its entry point like any other."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tenfold import Claim
    from tenfold.results import RunFolder

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
            timeout=600,
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
        summary = "What grows [in a line]."
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nSummary: {summary}\n"
        )
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


@pytest.fixture(scope="session")
def finished_run() -> Callable[..., RunFolder]:
    """Return a function that writes a finished run of a made-up paper, with every verdict, for the report."""
    from datetime import UTC, datetime

    from tenfold import AtLeast, Below, Claim, Estimate
    from tenfold.claims import judge
    from tenfold.results import ClaimResult, ClaimsFile, RunFolder
    from tenfold.storage import write_json

    small = Below("error_plain")
    metrics = {
        "error": Estimate((0.1, 0.2, 0.3)),
        "error_plain": Estimate((0.5, 0.6, 0.7)),
        "speed": Estimate((-2,)),
        "diverged": Estimate((1.0, math.inf)),
    }
    usual = [
        Claim("C1", "The error is smaller.", "section 2", "error", small, unit="nats"),
        Claim("C2", "It is fast.", "table 1", "speed", AtLeast(), paper_value=1234, note="One machine."),
        Claim("C3", "It scales.", "figure 3", "speed", AtLeast(0), scales=("paper",), paper_text="to 8 GPUs"),
        Claim("C4", "It reads books.", "figure 4", "speed", AtLeast(0), needs=("books",)),
    ]
    about = {"title": "A small paper", "paper": "Doe, 1999", "url": "https://example.org/1"}

    def finished_run(
        results: Path, name: str = "small", scale: str = "quick", claims: list[Claim] = usual, **facts: str
    ) -> RunFolder:
        folder = RunFolder(results / name / scale)
        judged = [ClaimResult.of(c, metrics, *judge(c, metrics, scale, lambda _: False)) for c in claims]
        content = {"experiment": name, "scale": scale, "summary": "It is small."} | about | facts
        finished = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
        write_json(folder.claims_file, ClaimsFile(**content, finished=finished, claims=judged))
        folder.write_config({"seeds": [0, 1, 2]})
        return folder

    return finished_run
