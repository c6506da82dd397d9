"""The commands of all packages are of one design: who knows one finds the same options in the others."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = [
    tomllib.loads(path.read_text("utf-8"))["project"] for path in ROOT.glob("packages/*/pyproject.toml")
]
COMMANDS = {
    command: (project, target.partition(":")[0])
    for project in PROJECTS
    for command, target in project.get("scripts", {}).items()
}
PAPERS = {
    name
    for name, (project, _) in COMMANDS.items()
    if "tenfold.experiments" in project.get("entry-points", {})
}
OTHER_NAMES = {
    "--output": "--out",
    "--outdir": "--out",
    "--output-dir": "--out",
    "--num-workers": "--workers",
    "--override": "--set",
    "--as-json": "--json",
    "--random-seed": "--seed",
}
"""What other programs call it, and what it is called here."""


def module(command: str) -> Any:
    return importlib.import_module(COMMANDS[command][1])


def verbs(command: str) -> dict[str, set[str]]:
    """The options of each verb, also of verbs below verbs."""
    found: dict[str, set[str]] = {}

    def look(node: Any, name: str) -> None:
        found[name] = {option for parameter in node.params for option in parameter.opts if option[0] == "-"}
        for below, child in getattr(node, "commands", {}).items():
            look(child, f"{name} {below}".strip())

    look(typer.main.get_command(module(command).app), "")
    return found


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_tells_its_version(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    project, _ = COMMANDS[command]
    with pytest.raises(SystemExit) as ended:
        module(command).main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"{project['name']} {project['version']}\n"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_mistake_ends_with_2_and_no_traceback(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module(command).main(["no-such-verb"])
    assert ended.value.code == 2
    assert "No such command 'no-such-verb'" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_is_the_same_has_the_same_name(command: str) -> None:
    for verb, options in verbs(command).items():
        assert not {f"{command} {verb} {option}" for option in options & OTHER_NAMES.keys()}
        if "-o" in options:
            assert "--out" in options
        if "--out" in options:
            assert "-o" in options, f"{command} {verb}"


@pytest.mark.parametrize("command", sorted(PAPERS))
def test_every_paper_reproduces_with_the_same_options(command: str) -> None:
    options = verbs(command)["reproduce"] - {"--quick", "--laptop", "--assert", "--help"}
    assert options == {"--scale", "--set", "--resume", "--results", "--json"}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_package_runs_as_a_module(command: str) -> None:
    package = COMMANDS[command][1].partition(".")[0]
    folder = Path(importlib.import_module(package).__path__[0])
    said = f'"""`python -m {package}` is the command `{command}`."""'
    assert (folder / "__main__.py").read_text("utf-8").startswith(said)
