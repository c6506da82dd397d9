"""Runs a program on its tests, inside a sandbox: the text of this file is the program that the sandbox runs.

stdin: a JSON object. With "inputs", the program runs on each as its standard input or, if "call" names a
function, that one is called with each as its arguments, and its value is the output, as JSON. Without, the
program runs once, then "asserts" do, in its namespace, and "token" is what they end with. stdout: UNPARSED,
or a JSON list as far as the time went: [status, output] for each test, the status "ok", "timeout" or
"error". Judging is done outside, where the program cannot reach. Only the standard library.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import types
from typing import Any

WALL_PER_CPU = 4  # a program may wait, and a busy machine gives it only part of a core
TESTS_AT_FULL_TIME = 4  # what all tests may take together, as a multiple of what one may
UNPARSED = '"unparsed"'


def main() -> None:
    """Run what stdin asks for."""
    job = json.load(sys.stdin)
    try:
        program = compile(job["program"], "program.py", "exec")
    except (SyntaxError, ValueError) as error:
        print(error, file=sys.stderr)
        print(UNPARSED, end="")
        return
    reports: list[list[str]] = []
    cpu_left = TESTS_AT_FULL_TIME * job["cpu_s"]
    wall_end = time.monotonic() + WALL_PER_CPU * cpu_left
    for given in job.get("inputs", [""]):
        if cpu_left <= 0 or time.monotonic() >= wall_end:
            break
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as output:
            stdin.write(given.encode("utf-8", "replace"))
            stdin.seek(0)
            sys.stdout.flush()
            child = os.fork()
            if not child:
                become_the_program(program, job, stdin.fileno(), output.fileno())
                return  # as a program ends: what is buffered is written, threads are waited for
            status, used = wait_for(child, WALL_PER_CPU * job["cpu_s"])
            cpu_left -= used
            output.seek(0)
            reports.append([status, output.read(job["output_bytes"]).decode("utf-8", "replace")])
    print(json.dumps(reports, ensure_ascii=False))


def become_the_program(program: types.CodeType, job: dict[str, Any], stdin: int, output: int) -> None:
    """Turn this process into the program; what it raises is left to end it."""
    # A program may put something else in the place of these.
    write, leave, execute, encode, find = os.write, os._exit, exec, json.dumps, getattr
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_s"], job["cpu_s"] + 1))
    os.dup2(stdin, 0)
    asserts = compile(job["asserts"], "tests.py", "exec") if "asserts" in job else None
    call = job.get("call")
    os.dup2(os.open(os.devnull, os.O_WRONLY) if asserts or call else output, 1)
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")  # noqa: SIM115
    arguments = json.load(sys.stdin) if call else []
    module = types.ModuleType("program" if asserts or call else "__main__")
    sys.modules[module.__name__] = module
    execute(program, module.__dict__)
    if call:
        # The class first: a star import may have brought a function of the method's name.
        solution: Any = module.__dict__.get("Solution")
        owner = module if find(solution, call, None) is None else solution()
        write(output, encode(find(owner, call)(*arguments)).encode())
        leave(0)
    if asserts:
        execute(asserts, module.__dict__)
        write(output, job["token"].encode())
        leave(0)


def wait_for(child: int, wall_s: float) -> tuple[str, float]:
    """How a child ended, and the CPU seconds that it took. It and what it left running is killed."""
    end = time.monotonic() + wall_s
    pause = 0.001
    ended, code, usage = os.wait4(child, os.WNOHANG)
    while not ended and time.monotonic() < end:
        time.sleep(pause)
        pause = min(1.5 * pause, 0.05)
        ended, code, usage = os.wait4(child, os.WNOHANG)
    late = not ended
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    if late:
        _, code, usage = os.wait4(child, 0)
    late = late or (os.WIFSIGNALED(code) and os.WTERMSIG(code) == signal.SIGXCPU)
    return "timeout" if late else "error" if code else "ok", usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
