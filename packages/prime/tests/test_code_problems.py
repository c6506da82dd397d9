"""Rows as the public sets of programming problems have them become tasks that a right program solves."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from implicit_prime.code_problems import read_code_problem
from implicit_prime.errors import PrimeError
from implicit_prime.sandbox import BubblewrapSandbox
from implicit_prime.tasks import read_task, read_tasks
from implicit_prime.verifiers import CodeVerifier
from tenfold import data

LIVE = {
    "question_title": "Sums",
    "question_content": "Add two numbers.\n",
    "platform": "atcoder",
    "question_id": "abc1_a",
    "contest_id": "abc1",
    "contest_date": "2023-05-06T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
    "metadata": "{}",
}
HIDDEN = [{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}]


def packed(cases: Any) -> str:
    """As code_generation_lite has its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


FUNCTIONAL = LIVE | {
    "starter_code": "class Solution:\n    def power(self, x: int, ys: List[int]) -> List[int]:\n        ",
    "public_test_cases": json.dumps([{"input": "2\n[3, 4]", "output": "[3, 1]", "testtype": "functional"}]),
    "private_test_cases": packed([{"input": "3\n[]", "output": "[]", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "power"}),
}
LEETCODE = {
    "task_id": "weekly-contest-1-power",
    "url": "https://leetcode.com/problems/power",
    "title": "power",
    "meta": {"difficulty": "Easy"},
    "prompt": '"""\nRaise it.\n"""\nclass Solution:\n    def power(self, x: int, ys: List[int]):\n    ',
    "prompt_sft": "Raise it.\n```python\nclass Solution:\n    def power(self, x: int, ys: List[int])\n```",
    "test": "\nmy_solution = Solution()\n\ntest_input = {'x': 2, 'ys': [3, 4]}\n"
    "assert my_solution.power(**test_input) == [3, 1]\n",
    "start_time": 1705804200,
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x: int) -> int:\n    """Twice x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}
LEETCODE_DATASET = {
    "task_id": "power",
    "prompt": "from typing import *\n",
    "query": "Raise it, beginning with class Solution.",
    "entry_point": "Solution().power",
    "test": "def check(candidate):\n    assert candidate(x=2, ys=[3, 4]) == [3, 1]\n",
    "completion": "class Solution: ...",
    "response": "...",
}
SUM = "```python\nprint(sum(map(int, input().split())))\n```"
POWER = (
    "```python\nclass Solution:\n    def power(self, x: int, ys: List[int]) -> List[int]:\n"
    "        return [pow(x, y, 5) for y in ys]\n```"
)


@pytest.fixture(scope="module")
def verifier() -> CodeVerifier:
    try:
        return CodeVerifier(BubblewrapSandbox())
    except PrimeError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        (LIVE | {"private_test_cases": json.dumps(HIDDEN)}, SUM, SUM.replace("sum(", "1 + sum(")),
        (LIVE | {"private_test_cases": packed(HIDDEN)}, SUM, SUM.replace("int,", "len,")),
        (FUNCTIONAL, POWER, POWER.replace("return", "return ys and 0,")),
        (LEETCODE, POWER, POWER.replace("5)", "4)")),
        (HUMANEVAL, "    return 2 * x", "    return x ** 3"),
        (LEETCODE_DATASET, POWER, POWER.replace("5)", "4)")),
    ],
    ids=["live", "live-packed", "live-functional", "leetcode", "humaneval", "leetcode-dataset"],
)
def test_a_right_program_solves_a_row_of_each_set_and_a_wrong_one_does_not(
    verifier: CodeVerifier, row: Mapping[str, Any], right: str, wrong: str
) -> None:
    task = read_task(row)
    assert task["ability"] == "code"
    json.dumps(task)  # as `eval --out` writes it
    results = verifier([right, wrong], [task["answer"]] * 2)
    assert [result.score for result in results] == [1.0, 0.0], results


def test_public_and_private_tests_count_alike() -> None:
    task = read_code_problem(LIVE | {"private_test_cases": packed(HIDDEN)})
    assert task is not None
    assert task["answer"]["inputs"] == ["1 2\n", "5 6\n"]
    assert task["answer"]["outputs"] == ["3\n", "11\n"]
    assert "fn_name" not in task["answer"]


def test_the_prompt_has_the_code_to_begin_with_or_says_where_input_is(tmp_path: Path) -> None:
    assert read_task(LIVE)["prompt"].startswith("Add two numbers.\n\nThe program reads")
    assert "def power(self, x: int" in read_task(FUNCTIONAL)["prompt"]
    assert read_task(LEETCODE, suffix="!")["prompt"] == LEETCODE["prompt_sft"] + "!"
    assert read_task(HUMANEVAL)["prompt"] == HUMANEVAL["prompt"]
    system, user = read_task(LEETCODE_DATASET, "sys")["prompt"]
    assert (system["content"], user["content"]) == ("sys", LEETCODE_DATASET["query"])


class Evil:
    def __reduce__(self) -> Any:
        return print, ("ran",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"private_test_cases": "%%"}, "private_test_cases is neither JSON nor JSON that was packed"),
        ({"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()}, "print"),
        ({"private_test_cases": packed({"input": ""})}, "must be a list of test cases"),
        ({"public_test_cases": "[{"}, "public_test_cases is no JSON"),
        ({"public_test_cases": '[{"input": "1"}]'}, "has no 'output'"),
        ({"metadata": "{"}, "metadata is no JSON"),
        ({"question_content": None}, "question_content is None; it must be text"),
        ({**FUNCTIONAL, "metadata": "{}"}, "metadata has no func_name"),
    ],
)
def test_tests_that_cannot_be_read_are_told_with_file_and_row(
    changes: dict[str, Any], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (LIVE, LIVE | changes)))
    with pytest.raises(PrimeError, match=rf"test.jsonl, row 1: .*{told}"):
        read_tasks([str(path)], ["code"])
    assert capsys.readouterr().out == ""


def test_a_file_of_a_hub_data_set_is_read_and_may_be_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "test2.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(LEETCODE).encode()))
    asked = []

    def download(*names: str, **options: str) -> str:
        asked.append((*names, options))
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    (task,) = read_tasks(["hf:owner/name:test2.jsonl.gz"], ["code"])
    assert task["prompt"] == LEETCODE["prompt_sft"]
    assert asked == [("owner/name", "test2.jsonl.gz", {"repo_type": "dataset"})]


def test_a_hub_data_set_without_the_package_for_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PrimeError, match=r"hf:owner/name:test is read by .*: pip install datasets"):
        read_tasks(["hf:owner/name:test"], ["code"])


def test_all_of_humaneval_is_read() -> None:
    folder = data.datasets()["humaneval"].path()
    if folder is None:
        pytest.skip("data humaneval is not available")
    tasks = read_tasks([str(folder / "HumanEval.jsonl.gz")], ["code"])
    assert len(tasks) == 164
