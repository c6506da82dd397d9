"""The benchmark's arithmetic and command line."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
FILE = PACKAGE / "benchmarks" / "cpu.py"
PRINTED = PACKAGE.parents[1] / "docs" / "benchmarks" / "memoryformer" / "cpu.txt"
# The columns of the README's table.
ARMS = (
    "nn.Linear bfloat16",
    "nn.Linear int8 dynamic",
    "embedding_bag + hash float32",
    "official formulation float32",
    "kernel float32",
    "kernel bfloat16",
    "kernel int8",
)


@pytest.fixture(scope="module")
def cpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memoryformer_cpu_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the names in their annotations
    spec.loader.exec_module(module)
    return module


def test_bandwidth_is_the_rows_read_over_the_lower_third(cpu: ModuleType) -> None:
    row = cpu.Row(8, 1, "a", [9.0, 1.0, 2.0, 3.0, 4.0, 5.0], 3000)
    assert row.time == 3.0
    assert row.bandwidth == 1e9


def test_layers_in_rotation_exceed_the_cache_twice(cpu: ModuleType) -> None:
    assert cpu.copies(10, 32) == 7
    assert cpu.copies(100, 32) == 2


def test_dense_wins_from_where_it_wins_for_good(cpu: ModuleType) -> None:
    def rows(times: dict[int, tuple[float, float]]) -> list[object]:
        arms = ("Linear fp32", "x")
        return [cpu.Row(8, n, arm, [both[i]]) for n, both in times.items() for i, arm in enumerate(arms)]

    some = rows({1: (9, 1), 8: (9, 8), 64: (9, 20)})
    assert cpu.where_dense_wins(some, 8, "x").endswith("from 64 tokens on")
    assert cpu.where_dense_wins(some[:4], 8, "x").endswith("at no size up to 8")


def test_every_arm_is_measured_and_its_bytes_counted(cpu: ModuleType) -> None:
    rows = cpu.measure(cpu.forward_arms(64, 2, 1), 64, 2, 3, lambda: 0.0)
    assert len(rows) == 9
    assert {row.table_bytes for row in rows if row.arm.startswith("look-up")} == {4096, 2048, 1024}
    assert len(cpu.measure(cpu.training_arms(64), 64, 2, 3, cpu.time.thread_time)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--widths", "100"], "widths are multiples of 8; got '100'"),
        (["--tokens", "1,x"], "expected numbers above 0, comma between them; got '1,x'"),
        (["--repeats", "2"], "--threads is 1 or more, --repeats 3 or more"),
    ],
)
def test_mistakes_on_the_command_line(
    cpu: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cpu.main(arguments)
    assert message in capsys.readouterr().err


def test_the_readme_s_table_is_what_the_benchmark_printed() -> None:
    """Arm, width, tokens, two times, then the time of `nn.Linear` over the arm's: of its first table."""
    first, _, _ = PRINTED.read_text(encoding="utf-8").partition("\n\n")
    line = re.compile(r"^(\S.*?) +(\d+) +(\d+) +[\d.]+ +[\d.]+ +([\d.]+) ", flags=re.MULTILINE)
    printed = {(arm, d, n): ratio for arm, d, n, ratio in line.findall(first)}
    table = re.findall(
        r"^\| (\d+) \| (\d+) \|(.*)\|$",
        (PACKAGE / "README.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert len(table) == 8
    for width, tokens, cells in table:
        expected = [printed.get((arm, width, tokens), "") for arm in ARMS]
        assert [cell.strip() for cell in cells.split("|")] == expected
