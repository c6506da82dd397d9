"""Section 7, test 11: scoring that was killed gives the same bytes when it is gone on with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

pytestmark = pytest.mark.long

ROWS = 3000


@pytest.fixture
def command(
    tiny_llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Callable[[str], list[str]]:
    for seed, name in enumerate(("model", "reference")):
        tiny_llama(seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    rows = (
        {
            "id": f"r{i}",
            "prompt": f"What is {i % 50} + 1? ",
            "completion": f"Step 1: add.\n\nStep 2: {i % 50 + 1}.",
        }
        for i in range(ROWS)
    )
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def build(out: str) -> list[str]:
        score = [
            sys.executable,
            "-m",
            "implicit_prm",
            "score",
            str(tmp_path / "in.jsonl"),
            str(tmp_path / out),
        ]
        return [*score, "--model", str(tmp_path / "model"), "--ref", str(tmp_path / "reference")]

    return build


def test_a_score_command_killed_in_the_middle_ends_with_the_same_bytes(
    command: Callable[[str], list[str]], tmp_path: Path
) -> None:
    killed = tmp_path / "killed.jsonl"
    with subprocess.Popen(command("killed.jsonl"), stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (killed.exists() and killed.stat().st_size):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -9
    lines = killed.read_bytes().count(b"\n")
    assert 0 < lines < ROWS
    for name in ("killed.jsonl", "whole.jsonl"):
        subprocess.run(command(name), check=True, stderr=subprocess.DEVNULL)
    assert killed.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert killed.read_bytes().count(b"\n") == ROWS
