"""Rows of public sets of programming problems, as tasks whose answers are tests for `CodeVerifier`."""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from implicit_prime.errors import PrimeError

# What solutions to LeetCode's problems take for imported; last the built-ins, for math has another pow.
IMPORTS = """\
import bisect, collections, copy, datetime, functools, heapq, itertools, math
import operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
from builtins import *
sys.setrecursionlimit(50_000)
"""


def read_code_problem(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A task with "prompt", "answer" and the "ability" "code"; None for a row of another kind. Of

    LiveCodeBench    code_generation and code_generation_lite (livecodebench, testN.jsonl): question_content,
                     starter_code, public_test_cases, private_test_cases, metadata
    LeetCode         contests of 2023 and 2024 (DeepSeek-Coder's 20240121-Jul.jsonl, PRIME's
                     leetcode-test.json): prompt_sft, test
    HumanEval        and LeetCodeDataset (newfacade): prompt, entry_point, test; the latter's question is
                     query

    LiveCodeBench's two formats of answers are told to the model in words of our own. Outcomes are the share
    of tests that pass where tests are apart, else 1 or 0; benchmarks ask for all of them, `pass_at_n`.
    Raises `PrimeError` for tests that cannot be read.
    """
    if {"question_content", "public_test_cases"} <= row.keys():
        return _task(_live_prompt(row), _live_tests(row))
    if {"prompt_sft", "test"} <= row.keys():
        return _task(row["prompt_sft"], {"prelude": IMPORTS, "assert_code": _text(row, "test")})
    if {"prompt", "entry_point", "test"} <= row.keys():
        asserts = f"{_text(row, 'test')}\ncheck({_text(row, 'entry_point')})"
        tests = {"prelude": _text(row, "prompt"), "assert_code": asserts}
        return _task(row.get("query") or row["prompt"], tests)
    return None


def _task(prompt: str, tests: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": prompt, "answer": tests, "ability": "code"}


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise PrimeError(f"{name} is {row[name]!r:.60}; it must be text")
    return str(row[name])


def _live_prompt(row: Mapping[str, Any]) -> str:
    question = _text(row, "question_content").rstrip()
    if row.get("starter_code"):
        return f"{question}\n\nBegin with this code:\n```python\n{row['starter_code'].rstrip()}\n```"
    return f"{question}\n\nThe program reads the input from stdin and prints the answer to stdout."


def _live_tests(row: Mapping[str, Any]) -> dict[str, Any]:
    cases = _cases(row, "public_test_cases") + _cases(row, "private_test_cases")
    metadata = _json(row.get("metadata") or "{}", "metadata")
    name = metadata.get("func_name") if isinstance(metadata, Mapping) else None
    functional = {case.get("testtype") == "functional" for case in cases}
    if functional == {True} and not name:
        raise PrimeError("its tests call a function, and metadata has no func_name")
    try:
        inputs, outputs = [case["input"] for case in cases], [case["output"] for case in cases]
    except KeyError as error:
        raise PrimeError(f"a test case has no {error}") from error
    called = {"fn_name": name} if name else {}
    return {"prelude": IMPORTS, "inputs": inputs, "outputs": outputs} | called


def _cases(row: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The cases of a column: JSON, or JSON that was pickled, compressed and coded in base64."""
    text = row.get(name) or "[]"
    if isinstance(text, str) and not text.lstrip().startswith("["):
        try:
            text = _TextPickle(io.BytesIO(zlib.decompress(base64.b64decode(text, validate=True)))).load()
        except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError) as error:
            raise PrimeError(f"{name} is neither JSON nor JSON that was packed: {error}") from error
    found = _json(text, name)
    if not isinstance(found, list) or not all(isinstance(case, dict) for case in found):
        raise PrimeError(f"{name} must be a list of test cases")
    return found


def _json(text: Any, name: str) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise PrimeError(f"{name} is no JSON: {error}") from error


class _TextPickle(pickle.Unpickler):
    """Reads a text and nothing that could run: a pickle that asks for a class is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds a {module_name}.{global_name}, where a text is expected")
