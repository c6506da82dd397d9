"""Programs in bubblewrap: namespaces of their own, read-only /usr, no network, no files of the user's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

from implicit_prime.errors import PrimeError
from implicit_prime.sandbox.base import OUTPUT_BYTES, SandboxResult, result_of
from implicit_prime.sandbox.processes import ENVIRONMENT, Ended, interpreter, rlimits, run_program

NOBODY = 65534
PROCESSES = 16
"""The most processes and threads in a sandbox."""

_PROBE = "import os\nif os.fork() == 0:\n    os._exit(0)\nos.wait()\nprint('in')"

_ADVICE = """
Programs of unknown origin are not run without a sandbox. What helps:
  Debian, Ubuntu    apt-get install bubblewrap    (0.8 or newer)
  Fedora            dnf install bubblewrap
  in a container    allow user namespaces: docker run --security-opt seccomp=unconfined \
--security-opt apparmor=unconfined --security-opt systempaths=unconfined
  Ubuntu >= 24.04   sysctl kernel.apparmor_restrict_unprivileged_userns=0
  another machine   RemoteSandbox(url), a SandboxFusion server
  at your own risk  RlimitSandbox(allow_unsandboxed=True): limits of time and memory only"""


class BubblewrapSandbox:
    """Runs Python programs in bubblewrap (`bwrap` 0.8 or newer); serves any number of threads.

    A program sees /usr, the interpreter and an empty /tmp in memory; it is user "nobody", has no network, no
    capabilities, and at most `PROCESSES` processes and threads of `memory_mb` address space each. What
    it leaves running is gone when it ends. It can import the standard library and what `python` itself has
    installed, not what a virtual environment has. What remains open: the kernel's system calls are not
    filtered, so a hole in the kernel is a hole in the sandbox; a virtual machine is safer.

    memory_mb  address space of a process; the interpreter needs about 30
    python     the interpreter; by default the running one

    Raises `PrimeError`, with what to do, where bubblewrap is missing or may not make its namespaces.
    """

    def __init__(self, memory_mb: int = 512, *, python: str | Path | None = None) -> None:
        self.memory_mb = memory_mb
        self.python = interpreter() if python is None else Path(os.path.realpath(python))
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise PrimeError(f"bubblewrap (bwrap) is not installed.{_ADVICE}")
        if not self.python.is_file():
            raise PrimeError(f"{self.python} is no Python")
        self._command = [*_as_nobody(self._prefix), bwrap, *_view(self._prefix)]
        probe = self.run(_PROBE)
        if probe.stdout != "in\n":
            raise PrimeError(f"the sandbox does not work here: {probe.stderr.strip() or probe}{_ADVICE}")

    def run(self, code: str, stdin: str = "", cpu_s: float = 2, wall_s: float = 20) -> SandboxResult:
        """See `Sandbox.run`. Source and input are given as UTF-8, outputs of at most 16 MiB are read as it.

        Raises `PrimeError` if the sandbox cannot be set up, or for limits that are not positive.
        """
        limits = {**rlimits(self.memory_mb, cpu_s), "RLIMIT_NPROC": (PROCESSES, PROCESSES)}
        with tempfile.TemporaryFile() as status:
            fd = status.fileno()
            ended = run_program(
                [*self._command, "--json-status-fd", str(fd), "--", str(self.python)],
                limits,
                code,
                stdin,
                wall_s,
                pass_fds=(fd,),
            )
            status.seek(0)
            return _result(ended, status.read())

    @property
    def _prefix(self) -> Path:
        """The folder of the interpreter and its library."""
        return self.python.parent.parent


def _result(ended: Ended, status: bytes) -> SandboxResult:
    """bwrap tells the exit code in a file that the program cannot write, provided that the program began."""
    codes = [told["exit-code"] for told in map(json.loads, status.splitlines()) if "exit-code" in told]
    if not codes and not ended.stopped:
        raise PrimeError(f"the sandbox could not be set up: {ended.stderr.strip()}{_ADVICE}")
    code = codes[0] if codes else -signal.SIGKILL
    return result_of(
        128 - code if code > 128 else code, ended.stdout, ended.stderr, stopped=ended.stopped and not codes
    )


def _view(prefix: Path) -> list[str]:
    """What bubblewrap is told: all that a program sees."""
    arguments = ["--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    arguments += ["--die-with-parent", "--new-session"]
    arguments += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for folder in ("/bin", "/lib", "/lib64", "/sbin"):
        if os.path.islink(folder):
            arguments += ["--symlink", os.readlink(folder), folder]
        else:
            arguments += ["--ro-bind-try", folder, folder]
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if not prefix.is_relative_to("/usr") and prefix != Path("/"):
        arguments += ["--ro-bind", str(prefix), str(prefix)]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]  # /dev/shm has no size
    arguments += ["--size", str(4 * OUTPUT_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]
    arguments += ["--clearenv"]
    for name, value in ENVIRONMENT.items():
        arguments += ["--setenv", name, value]
    return arguments


_REACH = """
set -e
umask 022
cd "$2"
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir -p "$2"
mount -c --bind . "$2"
cd /
shift 2
exec "$@"
"""
"""Shows folder $2 in an empty folder $1 around it; the rest is the command."""


def _as_nobody(prefix: Path) -> list[str]:
    """What stands before the sandbox where root starts it: the kernel does not limit root's processes.

    An interpreter in a folder that only root may enter, /root above all, is shown in an empty one, in a mount
    namespace of its own. All of this becomes bwrap, one process after all: it dies with its parent.
    """
    if os.geteuid() != 0:
        return []
    lacking = [tool for tool in ("setpriv", "unshare", "mount") if shutil.which(tool) is None]
    if lacking:
        raise PrimeError(f"as root the sandbox needs {lacking[0]}, of util-linux; or start as another user")
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", "--"]
    closed = [folder for folder in reversed(prefix.parents) if not folder.stat().st_mode & 0o001]
    if not closed:
        return user
    return ["unshare", "--mount", "--", "sh", "-c", _REACH, "sh", str(closed[0]), str(prefix), *user]
