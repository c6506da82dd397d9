from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from implicit_prime import PrimeError, PrimeWarning
from implicit_prime.sandbox import BubblewrapSandbox, RemoteSandbox, RlimitSandbox
from implicit_prime.sandbox.base import result_of


@pytest.fixture(scope="module")
def sandbox():
    try:
        return BubblewrapSandbox()
    except PrimeError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.fixture(scope="module")
def unsandboxed():
    with pytest.warns(PrimeWarning, match="WITHOUT A SANDBOX"):
        return RlimitSandbox(allow_unsandboxed=True)


@pytest.fixture(params=["bubblewrap", "rlimits"])
def any_sandbox(request):
    return request.getfixturevalue("sandbox" if request.param == "bubblewrap" else "unsandboxed")


def test_a_program_reads_its_input_and_is_main(any_sandbox):
    code = (
        "import sys\nif __name__ == '__main__':\n    print(input()[::-1], 'é')\nprint('oh', file=sys.stderr)"
    )
    result = any_sandbox.run(code, "abc\n")
    assert (result.status, result.returncode, result.stdout, result.stderr) == ("ok", 0, "cba é\n", "oh\n")


@pytest.mark.parametrize(
    ("code", "status", "returncode"),
    [
        ("raise SystemExit(3)", "error", 3),
        ("1 / 0", "error", 1),
        ("def f(:", "error", 1),
        ("x = bytearray(10 * 2**30)", "memory", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "error", -signal.SIGSEGV),
        ("print('MemoryError')", "ok", 0),
    ],
)
def test_how_a_program_ended_is_told(any_sandbox, code, status, returncode):
    result = any_sandbox.run(code)
    assert (result.status, result.returncode) == (status, returncode)


def test_a_loop_ends_at_the_cpu_limit_and_a_sleeper_at_the_wall_limit(any_sandbox):
    loop = any_sandbox.run("print('in', flush=True)\nwhile True: pass", cpu_s=1)
    assert (loop.status, loop.returncode, loop.stdout) == ("timeout", -signal.SIGXCPU, "in\n")
    began = time.monotonic()
    sleeper = any_sandbox.run("import time; time.sleep(600)", wall_s=0.5)
    assert (sleeper.status, sleeper.returncode) == ("timeout", -signal.SIGKILL)
    assert time.monotonic() - began < 60


def test_a_big_file_and_a_flood_of_output_are_refused(any_sandbox):
    code = "print('x' * 99, flush=True)\nopen('big', 'wb').write(bytes(64 * 2**20))"
    result = any_sandbox.run(code)
    assert result.status == "error"
    assert "File too large" in result.stderr
    assert result.stdout == "x" * 99 + "\n"
    flood = any_sandbox.run("while True: print('x' * 10**6)", cpu_s=5)
    assert flood.status == "error"
    assert len(flood.stdout) == 16 * 2**20


ESCAPES = {
    "write beside the programs": "open('/usr/bin/mine', 'w')",
    "write in the root": "open('/mine', 'w')",
    "write shared memory, which has no limit": "open('/dev/shm/mine', 'w')",
    "read the machine's users": "open('/etc/passwd').read()",
    "read the machine's folders": "import os; assert {'home', 'srv', 'var'} & set(os.listdir('/'))",
    "read the environment": "import os; os.environ['SECRET_OF_THE_TEST']",
    "reach a server of this machine": "import socket; socket.create_connection(('127.0.0.1', PORT), 5)",
    "reach another machine": "import socket; socket.create_connection(('1.1.1.1', 53), 5)",
    "become root": "import os; os.setuid(0)",
    "get more memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
    "make a namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "mount": "import ctypes; assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
    "see other processes": "import os; assert len([p for p in os.listdir('/proc') if p.isdigit()]) > 2",
    "kill the sandbox": "import os; os.kill(1, 9); import time; time.sleep(0.2); os.kill(1, 0); 1 / 0",
    "hold a file of the sandbox's": "import os; assert len(os.listdir('/proc/self/fd')) > 4",
}


@pytest.mark.parametrize("attempt", ESCAPES)
def test_an_escape_fails(sandbox, attempt, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_TEST", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = ESCAPES[attempt].replace("PORT", str(server.getsockname()[1]))
        result = sandbox.run(code)
    assert result.status == "error", result
    assert "Error" in result.stderr


def test_a_fork_bomb_is_stopped_and_nothing_stays_behind(sandbox):
    name = f"left-behind-{os.getpid()}"
    bomb = f"""
import os, time
open('/proc/self/comm', 'w').write({name[:15]!r})
children = 0
while True:
    try:
        child = os.fork()
    except BlockingIOError:
        break
    if not child:
        os.setsid()
        time.sleep(600)
    children += 1
print(children)
"""
    result = sandbox.run(bomb)
    assert result.status == "ok"
    assert int(result.stdout) == 14  # of 16, with bwrap's own and the program
    _wait(lambda: not _runs(name[:15]))  # the kernel takes a moment


def test_many_threads_may_use_one_sandbox(sandbox):
    results = {}

    def ask(number: int) -> None:
        results[number] = sandbox.run(f"print({number})").stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(4)}


def test_a_program_dies_with_the_process_that_ran_it(sandbox):
    name = f"orphan-{os.getpid()}"[:15]
    code = f"open('/proc/self/comm', 'w').write({name!r})\nimport time\ntime.sleep(600)"
    script = (
        f"from implicit_prime.sandbox import BubblewrapSandbox\nBubblewrapSandbox().run({code!r}, wall_s=600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    _wait(lambda: _runs(name))
    process.kill()
    process.wait()
    _wait(lambda: not _runs(name))


def _runs(name: str) -> bool:
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # ended meanwhile
            names.append(path.read_text())
    return f"{name}\n" in names


def _wait(done) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


def test_what_cannot_be_set_up_is_an_error_with_advice(sandbox, monkeypatch, tmp_path):
    with pytest.raises(PrimeError, match="must be positive"):
        sandbox.run("", cpu_s=0)
    with pytest.raises(PrimeError, match="is no Python"):
        BubblewrapSandbox(python=tmp_path / "bin" / "python")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PrimeError, match="apt-get install bubblewrap"):
        BubblewrapSandbox()


def test_without_a_sandbox_nothing_runs_unless_told_so():
    with pytest.raises(PrimeError, match="allow_unsandboxed=True"):
        RlimitSandbox()


@pytest.mark.parametrize(
    ("stderr", "status"),
    [
        ("Traceback\nMemoryError", "memory"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1 GiB", "memory"),
        ("MemoryError\nValueError: x", "error"),
        ("", "error"),
    ],
)
def test_only_a_memory_error_that_ended_the_program_counts(stderr, status):
    assert result_of(1, "", stderr, stopped=False).status == status


class FusionServer(BaseHTTPRequestHandler):
    """Answers as SandboxFusion does; the program is what it should answer."""

    asked: list[dict] = []  # noqa: RUF012
    refusals = 0

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append({"path": self.path, **request})
        if FusionServer.refusals:
            FusionServer.refusals -= 1
            self.send_error(504)
            return
        body = request["code"].encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def fusion():
    with ThreadingHTTPServer(("127.0.0.1", 0), FusionServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield RemoteSandbox(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


def _answer(verdict: str, **run: object) -> str:
    return json.dumps({"status": verdict, "message": "why", "run_result": run or None})


def test_a_sandboxfusion_server_is_asked_as_verl_asks_it(fusion):
    FusionServer.refusals = 1  # busy servers are asked again
    answer = _answer("Success", status="Finished", return_code=0, stdout="5\n", stderr="")
    result = fusion.run(answer, "in", wall_s=7)
    assert (result.status, result.returncode, result.stdout) == ("ok", 0, "5\n")
    assert FusionServer.asked[-1] == {
        "path": "/run_code",
        "language": "python",
        "code": answer,
        "stdin": "in",
        "compile_timeout": 7,
        "run_timeout": 7,
        "memory_limit_MB": 512,
        "files": {},
        "fetch_files": [],
    }


def test_the_servers_verdicts_are_ours(fusion):
    late = _answer("Failed", status="TimeLimitExceeded", return_code=None, stdout="", stderr="")
    assert fusion.run(late).status == "timeout"
    assert (
        fusion.run(_answer("Failed", status="Finished", return_code=1, stdout="", stderr="x")).status
        == "error"
    )
    greedy = _answer("Failed", status="Finished", return_code=1, stdout=None, stderr="MemoryError\n")
    assert fusion.run(greedy).status == "memory"
    for broken in (_answer("SandboxError"), "[]", "{}", "<html></html>"):
        with pytest.raises(PrimeError, match=r"127\.0\.0\.1"):
            fusion.run(broken)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "localhost", "localhost:1", "http://127.0.0.1:port"])
def test_a_server_that_is_not_there_is_an_error(monkeypatch, url):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(PrimeError, match="is it up, and the address right"):
        RemoteSandbox(url).run("")
