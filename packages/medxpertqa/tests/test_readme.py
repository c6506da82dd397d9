"""The README's example runs as it stands, and gives what the README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import medxpertqa as mx

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_runs() -> None:
    exec(EXAMPLE, {})


def test_the_letters_that_it_says_are_those_of_the_parsers() -> None:
    found = re.findall(r'parser="(\w+)"\s*\)\.letter  # "(\w)"', EXAMPLE)
    assert dict(found) == {"official": "I", "robust": "D"}
    for parser, letter in found:
        assert mx.parse_answer("I think it is D", n_options=10, parser=parser).letter == letter


def test_one_row_of_the_tables_cannot_be_whole_counts() -> None:
    rows = mx.paper.check_tables()
    assert [row.model for row in rows if not row.consistent] == ["LLaMA-3-70B-UltraMedical"]


def test_its_interval_is_wilson_s() -> None:
    p, n, z = 300 / 2450, 2450, 1.959964
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    wanted = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    assert list(mx.stats.wilson(300, 2450)) == pytest.approx(wanted, abs=1e-7)
