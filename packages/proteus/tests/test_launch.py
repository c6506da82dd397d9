"""The script that serves one language model and runs many data sets with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proteus_omics import batches, cli

LAUNCH = Path(__file__).parents[1] / "launch"
LLM = ("--planner", "llm", "--base-url", "http://localhost:8123/v1", "--model", "org/m")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `batches` starts for each run, after the input, without the runs themselves."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command[5:])
        return subprocess.CompletedProcess(command, 0, "done", "")

    monkeypatch.setattr(batches, "subprocess", SimpleNamespace(run=run))
    return commands


def test_a_model_for_all_rows_is_left_out_where_a_row_has_its_own_planner(
    tmp_path: Path, started: list[list[str]]
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "input,out,planner,model\na.tsv,a,,\nb.tsv,b,rules,\nc.tsv,c,llm,mine\nd.tsv,d,,mine\n"
    )
    model = {"planner": "llm", "base_url": "http://h/v1", "model": "all"}
    assert [row["exit_code"] for row in batches.run_batch(manifest, **model)] == [0] * 4
    assert started == [
        ["--out", "a", "--planner", "llm", "--model", "all", "--base-url", "http://h/v1"],
        ["--out", "b", "--planner", "rules"],
        ["--out", "c", "--planner", "llm", "--model", "mine", "--base-url", "http://h/v1"],
        ["--out", "d", "--planner", "llm", "--model", "mine", "--base-url", "http://h/v1"],
    ]
    started.clear()
    manifest.write_text("input,out\na.tsv,a\n")
    list(batches.run_batch(manifest))
    assert started == [["--out", "a"]]


def test_a_planner_that_does_not_exist_is_told_before_anything_runs(
    tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.csv").write_text("input,out\na.tsv,a\n")
    with pytest.raises(SystemExit) as ended:
        cli.app(["batch", str(tmp_path / "manifest.csv"), "--planner", "magic"])
    assert ended.value.code == 2
    assert "--planner is 'magic'; it is one of rules, llm" in capsys.readouterr().err
    assert not started


def test_the_script_hands_the_served_model_to_every_run(
    tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """With stand-ins for the server and the command; what the script says is then given to the command."""
    stands = {
        "vllm": 'echo "$@" > served; exec /bin/sleep 600',
        "curl": "test -s served",
        "sleep": "exec /bin/sleep 0.05",
        "proteus-omics": 'printf "%s\\n" "$@"',
    }
    for name, code in stands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "manifest.csv").write_text("input,out\na.tsv,a\nb.tsv,b\n")
    said = subprocess.run(
        ["bash", str(LAUNCH / "run.sh"), "manifest.csv"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "MODEL": "org/m", "PORT": "8123"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "served").read_text().startswith("serve org/m --tensor-parallel-size 1 ")
    verb, manifest, *options = said.stdout.splitlines()
    assert (verb, manifest) == ("batch", "manifest.csv")
    assert options == ["--workers", "4", *LLM]
    with pytest.raises(SystemExit) as ended:
        cli.app([verb, str(tmp_path / manifest), *options])
    assert not ended.value.code, capsys.readouterr().err
    assert sorted(started) == [["--out", name, *LLM] for name in ("a", "b")]
