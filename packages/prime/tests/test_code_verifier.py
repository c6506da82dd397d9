from __future__ import annotations

import gzip
import json

import pytest

from implicit_prime import PrimeError, PrimeWarning
from implicit_prime.sandbox import BubblewrapSandbox, SandboxResult
from implicit_prime.verifiers import CodeVerifier
from implicit_prime.verifiers.code import same_output, same_value
from tenfold import data

SUMS = {"inputs": ["1 2\n", "3 4\n", "-1 1\n", "10 0\n"], "outputs": ["3\n", "7\n", "0\n", "10"]}
DOUBLE = {
    "prelude": "def double(x):\n    '''Twice x.'''",
    "assert_code": "assert double(2) == 4\nassert double('a') == 'aa'",
}


@pytest.fixture(scope="module")
def verifier():
    try:
        sandbox = BubblewrapSandbox()
    except PrimeError as error:
        pytest.skip(str(error).splitlines()[0])
    return CodeVerifier(sandbox, cpu_s=1)


def _fenced(code: str) -> str:
    return f"I think so:\n```python\n{code}\n```\nDone."


THREADED = "from threading import *\nThread(target=lambda: print(sum(map(int, input().split())))).start()"
RIGHT = "a, b = map(int, input().split())\nprint(a + b)"


@pytest.mark.parametrize(
    ("completion", "score", "status"),
    [
        (_fenced(RIGHT), 1.0, "ok"),
        (RIGHT, 1.0, "ok"),
        (_fenced("print(0)") + "No, wait.\n" + _fenced(RIGHT), 1.0, "ok"),
        (f"```\n{RIGHT}\n```", 1.0, "ok"),
        (_fenced(THREADED), 1.0, "ok"),
        (_fenced(RIGHT + "\nexit()"), 1.0, "ok"),
        (_fenced(RIGHT + "\nexit(1)"), 0.0, "ok"),
        (_fenced("print(sum(map(int, open('/dev/stdin').read().split())))"), 1.0, "ok"),
        (_fenced(RIGHT.replace("a + b", "abs(a) + b")), 0.75, "ok"),
        (_fenced("print(3)"), 0.25, "ok"),
        (_fenced("if input() == '1 2': print(3)\nelse: 1 / 0"), 0.25, "ok"),
        (_fenced("a, b = map(int, input().split())\nwhile a == 3: pass\nprint(a + b)"), 0.75, "timeout"),
        (_fenced("x = [0] * 10**10"), 0.0, "ok"),
        (_fenced("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)"), 0.0, "ok"),
        (_fenced("import os\nwhile True: os.fork()"), 0.0, "ok"),
        (_fenced("import os\nopen(f'/proc/{os.getppid()}/fd/1', 'a').write('[' * 10**5)"), 0.0, "ok"),
        (_fenced("def f(:"), 0.0, "unparsed"),
        ("One adds the numbers.", 0.0, "unparsed"),
        ("```python\nprint(3)", 0.0, "unparsed"),
        ("```rust\nfn main() {}\n```", 0.0, "unparsed"),
        ("", 0.0, "unparsed"),
    ],
)  # fmt: skip
def test_the_score_is_the_share_of_tests_that_pass(verifier, completion, score, status):
    (result,) = verifier([completion], [SUMS])
    assert (result.score, result.status) == (score, status), result


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        ("    return 2 * x", 1.0),
        (_fenced("def double(x):\n    return x + x"), 1.0),
        ("    return x * x", 0.0),
        ("    pass", 0.0),
        ("    pass\nprint('passed')", 0.0),
        ("    pass\nimport os; os._exit(0)", 0.0),
        ("    import os; os._exit(0)", 0.0),
        ("    pass\nraise SystemExit(0)", 0.0),
        ("    raise SystemExit(0)", 0.0),
        ("    pass\nimport builtins\nbuiltins.exec = lambda *_: None", 0.0),
        ("    pass\nimport os\nos._exit = os.write = lambda *_: None", 0.0),
        ("    pass\nimport os, sys\nsys.excepthook = lambda *_: os._exit(0)", 0.0),
        ('    pass\n"""', 0.0),
        ("    pass\nimport os\nif os.fork(): os._exit(0)", 0.0),
        ("    pass\nimport os\nos.write(int(max(os.listdir('/proc/self/fd'), key=int)) - 1, b'passed')", 0.0),
    ],
)  # fmt: skip
def test_ending_early_or_saying_so_is_no_pass(verifier, completion, score):
    (result,) = verifier([completion], [DOUBLE])
    assert result.score == score, result
    assert result.status in ("ok", "unparsed")


GREATEST = {"inputs": ["[3, 1]\n2", "[0]\n5"], "outputs": ["[3, 2.5]", "[0, 5]"], "fn_name": "greatest"}
CALLED = "def greatest(numbers, x):\n    return max(numbers), {1: 2.5, 2: 2.5}.get(x, x)"


@pytest.mark.parametrize(
    ("program", "score"),
    [
        (CALLED, 1.0),  # a tuple is a list
        (f"class Solution:\n    {CALLED.replace('t(n', 't(self, n').replace('    ', '        ')}", 1.0),
        (f"{CALLED}\nprint(input())\n", 0.0),  # there is no input: its text is the arguments
        (f"print('[0, 5]')\n{CALLED}", 1.0),  # what it prints is nobody's output
        (CALLED.replace("2: 2.5", "2: 2.6"), 0.5),
        ("def greatest(numbers, x):\n    import os; os._exit(0)", 0.0),
        ("class Any:\n    __eq__ = lambda *_: True\ndef greatest(*_): return Any()", 0.0),
        ("def other(): pass", 0.0),
    ],
)
def test_a_function_is_called_and_its_value_compared_outside(verifier, program, score):
    (result,) = verifier([_fenced(program)], [GREATEST])
    assert (result.score, result.status) == (score, "ok"), result


def test_a_call_may_be_written_as_apps_has_it_and_input_as_lines(verifier):
    called = {"inputs": [[[3, 1], 2]], "outputs": [[[3, 2.5]]], "fn_name": "greatest"}
    lines = {"inputs": [["1 2"]], "outputs": [["3"]], "prelude": "two = 2"}
    results = verifier([_fenced(CALLED), _fenced(RIGHT + "\ntwo")], [called, lines])
    assert [result.score for result in results] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("output", "score"), [("[5]", 1.0), ("5", 1.0), ("[[5]]", 0.0), ("6", 0.0), ("[5, 5]", 0.0)]
)
def test_a_list_of_one_value_may_be_the_value_or_as_apps_has_it_be_around_it(verifier, output, score):
    tests = {"inputs": [[5]], "outputs": [[5]], "fn_name": "f"}
    (result,) = verifier([_fenced(f"def f(x):\n    return {output}")], [tests])
    assert (result.score, result.status) == (score, "ok"), result


@pytest.mark.parametrize(
    "program",
    [
        "class Solution:\n    def count(self, x):\n        return x + 1",
        "class Solution:\n    def helper(self):\n        pass\ndef count(x):\n    return x + 1",
        "def count(x):\n    return x + 1",
    ],
    ids=["method", "function beside a class", "function"],
)
def test_what_a_star_import_brought_is_not_called_in_its_place(verifier, program):
    tests = {"prelude": "from itertools import *", "inputs": ["1", "5"], "outputs": ["2", "6"]}
    (result,) = verifier([_fenced(program)], [{**tests, "fn_name": "count"}])
    assert (result.score, result.status) == (1.0, "ok"), result


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("[1, 2]", "[1,2]", True),
        ("[1]", "[1, 2]", False),
        ("0.30000000000000004", "0.3", True),
        ("3.0", "3", True),
        ("1000001", "1000000", False),
        ('"a"', '"b"', False),
        ('{"a": [0.1]}', '{"a": [0.10000001]}', True),
        ('{"a": 1}', '{"b": 1}', False),
        ("null", "[]", False),
        ("", "null", False),
    ],
)
def test_values_are_compared_as_json_and_decimals_by_value(output, expected, same):
    assert same_value(output, expected) is same


@pytest.mark.slow
def test_a_program_that_never_ends_has_the_time_of_four_tests(verifier):
    tests = {"inputs": ["x"] * 5 + ["end"], "outputs": ["x"] * 5 + ["end"]}  # the fifth may get a little
    (result,) = verifier([_fenced("given = input()\nwhile given == 'x': pass\nprint(given)")], [tests])
    assert (result.score, result.status) == (0.0, "timeout")  # the last would have passed


def test_the_order_is_kept_and_tests_may_be_json(verifier):
    programs = [_fenced(f"print({number})") for number in range(5)]
    tests = [json.dumps({"inputs": [""], "outputs": [str(number % 2)]}) for number in range(5)]
    assert [result.score for result in verifier(programs, tests)] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert verifier([], []) == []


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("{", "no JSON"),
        (None, "not None"),
        ({"inputs": [], "outputs": []}, "0 inputs"),
        ({"inputs": ["1"], "outputs": []}, "0 outputs"),
        ({"inputs": "1", "outputs": ["1"]}, "must be lists"),
        ({"inputs": [""], "outputs": [""], "timeout": 3}, "outputs, timeout"),
        ({"inputs": ["x"], "outputs": ["1"], "fn_name": "f"}, "neither a list nor the JSON"),
        ({"inputs": ["1"], "outputs": ["x"], "fn_name": "f"}, "is no JSON"),
        ({"inputs": ["1"], "outputs": ["1"], "fn_name": 3}, "fn_name must be text"),
        ({"inputs": [1], "outputs": [2]}, "texts"),
        ({"inputs": [""], "outputs": ["x" * 5 * 2**20]}, "4194304 characters"),
        ({"inputs": [[1]], "outputs": [["x" * 5 * 2**20]], "fn_name": "f"}, "4194304 characters"),
        ({"prelude": "", "assert_code": "assert ("}, "no Python"),
        ({"prelude": "", "assert_code": None}, "text"),
    ],
)
def test_tests_that_are_none_are_an_error_of_their_row(verifier, tests, why):
    with pytest.warns(PrimeWarning, match=rf"1 of 2 .* row 1: .*{why}"):
        results = verifier(["    return 2 * x", "print(1)"], [DOUBLE, tests])
    assert [(result.score, result.status) for result in results] == [(1.0, "ok"), (0.0, "error")]


class Sandbox:
    """Fails after `good` runs."""

    def __init__(self, good: int) -> None:
        self.good = good

    def run(self, code, stdin="", cpu_s=2, wall_s=20):
        self.good -= 1
        if self.good < 0:
            raise PrimeError("the server is gone")
        return SandboxResult("ok", 0, '[["ok", "x\\n"]]', "")


def test_a_sandbox_that_fails_is_an_error_and_one_that_never_works_is_told_at_once():
    with pytest.raises(PrimeError, match="the server is gone"):
        CodeVerifier(Sandbox(0))
    verifier = CodeVerifier(Sandbox(2), workers=1)
    with pytest.warns(PrimeWarning, match="1 of 2 .* the server is gone"):
        results = verifier(["p", "p"], [{"inputs": [""], "outputs": ["x"]}] * 2)
    assert [result.status for result in results] == ["ok", "error"]

    class Idle(Sandbox):
        def run(self, *arguments, **limits):
            return SandboxResult("error", 1, "", "no fork")

    with pytest.raises(PrimeError, match="no fork"):
        CodeVerifier(Idle(1))


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1  2 \r\n3\n\n", "1 2\n3\n", True),
        ("0.3333333", "0.33333333333", True),
        ("3.0", "3", False),  # whole numbers are exact
        ("-1000001", "-1000000", False),
        ("3", "3.0", True),
        ("1e3", "1000.0", True),
        ("0.334", "0.333", False),
        ("YES", "yes", False),
        ("1", "1 2", False),
        ("", "", True),
        ("", "1", False),
        ("nan", "nan", True),
        ("nan", "1.0", False),
    ],
)
def test_outputs_are_compared_by_tokens_and_decimals_by_value(output, expected, same):
    assert same_output(output, expected) is same


def _humaneval() -> list[dict]:
    folder = data.datasets()["humaneval"].path()
    if folder is None:
        pytest.skip("data humaneval is not available")
    lines = gzip.decompress((folder / "HumanEval.jsonl.gz").read_bytes()).splitlines()
    return [json.loads(line) for line in lines]


def _tests(row: dict) -> dict[str, str]:
    return {"prelude": row["prompt"], "assert_code": f"{row['test']}\ncheck({row['entry_point']})"}


def test_solutions_of_humaneval_pass_and_empty_ones_do_not(verifier):
    rows = _humaneval()[::16]
    solved = verifier([row["canonical_solution"] for row in rows], [_tests(row) for row in rows])
    assert [result.score for result in solved] == [1.0] * 11
    empty = verifier(["    pass"] * len(rows), [_tests(row) for row in rows])
    assert [result.score for result in empty] == [0.0] * 11


@pytest.mark.long
def test_all_164_solutions_of_humaneval_pass_and_no_empty_one(verifier):
    rows = _humaneval()
    tests = [_tests(row) for row in rows]
    patient = CodeVerifier(verifier.sandbox, cpu_s=10)
    solved = patient([row["canonical_solution"] for row in rows], tests)
    assert [row["task_id"] for row, result in zip(rows, solved, strict=True) if result.score != 1] == []
    assert len(solved) == 164
    assert sum(result.score for result in verifier(["    pass"] * 164, tests)) == 0
