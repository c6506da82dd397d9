"""The check of kernels compares with the golden table, and says what is wrong with which tile."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import kernel_check
from kernel_check import Row

ROOT = Path(__file__).resolve().parents[2]
GOOD = Row("attention_fwd", "bf16", 64, "sm_80", 100, 0, 40_000, True)
# Stands for a package's `aot` module: prints rows.json beside it, and ends with the code of its first line.
MODULE = """
import json, os, pathlib, sys
assert "TRITON_INTERPRET" not in os.environ
assert sys.argv[1:5] == ["--json", "--targets", "sm_80", "--every"], sys.argv
text = (pathlib.Path(__file__).parent / "rows.json").read_text()
code, _, rows = text.partition("\\n")
print(json.dumps(json.loads(rows)[:: int(sys.argv[5])]))
sys.exit(int(code))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with one package, `sample`, whose kernels are what `rows.json` says."""
    (tmp_path / "packages" / "sample" / "tests").mkdir(parents=True)
    (tmp_path / "packages" / "sample" / "src").mkdir()
    source = tmp_path / "packages" / "sample" / "src"
    (source / "kernels.py").write_text("from sample import tiles\n\ndef specs(): ...\n")
    (source / "tiles.py").write_text("tile = 64\n")
    (source / "ops.py").write_text("from sample import kernels\n")
    (tmp_path / "sample_aot.py").write_text(MODULE)
    monkeypatch.setattr(kernel_check, "ROOT", tmp_path)
    monkeypatch.setattr(kernel_check, "find_packages", lambda: {"sample": "sample_aot"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return tmp_path


def run(package: Path, *rows: Row, code: int = 0, flags: tuple[str, ...] = ()) -> int:
    (package / "rows.json").write_text(f"{code}\n{json.dumps([asdict(row) for row in rows])}")
    return kernel_check.main(["--targets", "sm_80", "--all", *flags])


def test_what_was_updated_holds(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(package, GOOD, flags=("--update",)) == 0
    assert run(package, GOOD) == 0
    assert run(package, replace(GOOD, regs=110, shared=44_000)) == 0  # 10% more
    out = capsys.readouterr().out
    assert "attention_fwd  bf16   64        sm_80   110" in out
    assert "sample: 1 tiles in" in out


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (replace(GOOD, regs=111), "attention_fwd bf16 d64 on sm_80: regs rose from 100 to 111, over 10%"),
        (replace(GOOD, shared=44_001), "shared rose from 40000 to 44001"),
        (replace(GOOD, tensor_core=False), "attention_fwd bf16 d64 on sm_80 does not use tensor cores"),
        (replace(GOOD, head_dim=128), "attention_fwd bf16 d128 on sm_80 has no golden row"),
        (replace(GOOD, head_dim=128), "d64 on sm_80 is in the golden table and not shipped"),
    ],
)
def test_what_became_worse_fails(
    package: Path, capsys: pytest.CaptureFixture[str], row: Row, message: str
) -> None:
    run(package, GOOD, flags=("--update",))
    assert run(package, row) == 1
    assert message in capsys.readouterr().err


def test_what_the_package_itself_refuses_fails_and_is_never_golden(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(package, GOOD, flags=("--update",))
    spilling = replace(GOOD, spill_bytes=8)
    assert run(package, spilling, code=1) == 1
    assert run(package, spilling, code=1, flags=("--update",)) == 1
    assert "golden_kernels.json is left as it was" in capsys.readouterr().err
    assert run(package, GOOD) == 0


def test_tensor_cores_are_asked_of_16_bit_products_only() -> None:
    without = replace(GOOD, tensor_core=False)
    rows = [without, replace(without, dtype="fp32"), replace(without, kernel="rotate")]
    assert kernel_check.missing_tensor_cores(rows) == [
        "attention_fwd bf16 d64 on sm_80 does not use tensor cores"
    ]


def test_other_targets_are_left_alone(package: Path) -> None:
    run(package, GOOD, flags=("--update",))
    assert not kernel_check.has_changed("sample")
    path = kernel_check.golden_path("sample")
    other = replace(GOOD, target="sm_90")
    kernel_check.write_golden(path, [other], ["sm_90"], kernel_check.sources("sample"))
    assert kernel_check.read_golden(path) == [GOOD, other]
    assert kernel_check.has_changed("sample")  # who knows of which sources the row of sm_80 is
    assert run(package, GOOD) == 0


def test_one_of_eight_tiles_is_compiled_until_a_source_changes(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [replace(GOOD, head_dim=dim) for dim in range(16)]
    run(package, *rows, flags=("--update",))
    capsys.readouterr()
    assert kernel_check.main(["--targets", "sm_80"]) == 0
    assert "sample: 2 tiles in" in capsys.readouterr().out
    (package / "rows.json").write_text(f"0\n{json.dumps([asdict(replace(rows[0], regs=200))])}")
    assert kernel_check.main(["--targets", "sm_80"]) == 1
    run(package, *rows)
    source = package / "packages" / "sample" / "src"
    (source / "ops.py").write_text("from sample.kernels import specs\n")  # nothing is compiled from it
    assert not kernel_check.has_changed("sample")
    (source / "tiles.py").write_text("tile = 128\n")
    assert kernel_check.main(["--targets", "sm_80"]) == 0
    assert "sample: 16 tiles in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("golden", "code", "message"),
    [
        (None, 0, "there is no golden_kernels.json: run with --update"),
        ('{"triton": "3.0", "rows": []}', 0, "was made by Triton 3.0"),
        (None, 2, "`python -m sample_aot` ended with code 2"),
    ],
)
def test_what_cannot_be_compared_says_why(
    package: Path, capsys: pytest.CaptureFixture[str], golden: str | None, code: int, message: str
) -> None:
    if golden:
        kernel_check.golden_path("sample").write_text(golden)
    assert run(package, GOOD, code=code) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_package_is_a_mistake(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        kernel_check.main(["other"])
    assert "no kernels in other; there are some in: sample" in capsys.readouterr().err


def test_every_package_carries_the_same_compiler() -> None:
    """A kernel package imports nothing of ours, so each has the file; it names no package."""
    texts = {}
    for pyproject in ROOT.glob("packages/*/pyproject.toml"):
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        for name, target in project.get("entry-points", {}).get(kernel_check.GROUP, {}).items():
            module = name.replace("-", "_")
            assert target == f"{module}.aot:entries"
            texts[name] = (pyproject.parent / "src" / module / "aot.py").read_text(encoding="utf-8")
            assert module not in texts[name]
    assert "fope-triton" in texts
    assert len(set(texts.values())) == 1
