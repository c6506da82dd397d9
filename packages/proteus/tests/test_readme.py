"""The README's examples run as they stand, and its commands have the options that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from proteus_omics.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
RUN, GUARD = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(RUN, names)
    assert names["run"].report.is_file()
    assert len(names["run"].hypotheses) > 20


def test_the_guard_says_what_the_readme_says() -> None:
    names: dict[str, Any] = {}
    exec(GUARD, names)
    told = [line.split("  # ") for line in GUARD.splitlines() if line.startswith("po.guard.check")]
    assert (
        [eval(code, names) for code, _ in told] == [said for _, said in told] == ["verified", "contradicted"]
    )


def test_the_commands_exist_with_their_options() -> None:
    command = typer.main.get_command(app)
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
    seen = 0
    for line in blocks.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["proteus-omics"]:
            continue
        verb = command.commands[words[1]]  # type: ignore[attr-defined]
        options = {name for parameter in verb.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
        seen += 1
    assert seen >= 4
