"""The commands of all packages are of one design: who knows one finds the same options in the others."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from tenfold import cli as tenfold

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
WITHOUT_JSON = {
    "implicit-prime": {"train"},  # writes a folder, with what was measured as JSON
    "implicit-prm": {"train", "score", "sample", "vote", "view"},  # JSON lines; a folder; a page
    "medxpertqa": {
        *("info", "download", "parse", "lm-eval-path"),  # texts for people, a path
        *("eval", "report", "share", "leakage", "batch export", "batch import"),  # write files, or logs
        *("build scan", "build run", "build status", "build review"),  # likewise
    },
    "memoryformer": {"generate"},  # a text
    "proteus-omics": {
        *("run", "resume", "demo", "batch", "report", "score", "serve"),  # work in a run's folder
        *("inspect", "verify", "tools", "knowledge list", "knowledge install"),  # JSON already; texts
    },
    "tenfold": {
        *("list", "report", "compare"),  # of claims.json and metrics.json, which are there
        *("data list", "data get", "data path"),  # texts for people, a path
    },
    "toedit": {"score", "diff", "analyze"},  # JSON lines; a coloured text; a page
}
"""The verbs that have no `--json`, and what they give instead."""


def module(command: str) -> Any:
    return importlib.import_module(COMMANDS[command][1])


def verbs(command: str) -> dict[str, dict[str, Any]]:
    """The options of each verb, also of verbs below verbs: the parameter by each of its names."""
    found: dict[str, dict[str, Any]] = {}

    def look(node: Any, name: str) -> None:
        if children := getattr(node, "commands", {}):
            for below, child in children.items():
                look(child, f"{name} {below}".strip())
        else:
            found[name] = {
                option: parameter
                for parameter in node.params
                for option in parameter.opts
                if option[0] == "-"
            }

    look(typer.main.get_command(module(command).app), "")
    return found


def told(text: str) -> str:
    """What was printed, without the line of usage, which has the command's own name."""
    return re.sub(r"(?s)^Usage: .*?(?=Options:|Error:)", "", text)


def raising(error: Exception) -> Callable[..., None]:
    """A command that fails so."""

    def fail(*_: Any) -> None:
        raise error

    return fail


def ran(main: Any, *arguments: str) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


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
@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'gguf'", name="gguf"),
        ModuleNotFoundError("gguf is needed"),
        ImportError("Please install torch and gguf>=0.10.0 to load a GGUF checkpoint in PyTorch."),
        ImportError("cannot import name 'GGUFReader' from 'gguf'", name="gguf"),
    ],
    ids=["module", "module without a name", "library", "old library"],
)
def test_what_a_command_lacks_is_told_in_a_sentence(
    command: str, error: ImportError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module(command), "app", raising(error))
    assert ran(module(command).main) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "gguf" in said
    named = "pip install" in said
    assert named == (command in PAPERS and isinstance(error, ModuleNotFoundError) and bool(error.name))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_defect_keeps_its_traceback(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = COMMANDS[command][1].partition(".")[0]
    for error in (
        ImportError(f"cannot import name 'x' from '{own}.y'", name=f"{own}.y"),
        ModuleNotFoundError(f"No module named '{own}.z'", name=f"{own}.z"),
        ValueError("operands could not be broadcast together with shapes (2,) (3,)"),
    ):
        monkeypatch.setattr(module(command), "app", raising(error))
        with pytest.raises(type(error)) as raised:
            module(command).main([])
        assert raised.value is error


@pytest.mark.parametrize("command", sorted(PAPERS))
def test_a_paper_has_one_class_of_errors(command: str) -> None:
    errors = importlib.import_module(f"{COMMANDS[command][1].partition('.')[0]}.errors")
    own = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in own if not issubclass(kind, Warning) and kind.__module__ == errors.__name__]
    assert issubclass(kinds[0], ValueError)
    assert all(issubclass(kind, kinds[0]) for kind in kinds)
    assert issubclass(errors.MissingExtraError, ImportError)
    assert str(errors.MissingExtraError("x needs y: pip install y")) == "x needs y: pip install y"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_is_the_same_has_the_same_name(command: str) -> None:
    for verb, options in verbs(command).items():
        assert not {f"{command} {verb} {option}" for option in options.keys() & OTHER_NAMES.keys()}
        if "-o" in options:
            assert "--out" in options
        if "--out" in options:
            assert "-o" in options, f"{command} {verb}"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_json_is_a_flag_that_verbs_have_or_give_something_else_for(command: str) -> None:
    found = verbs(command)
    for verb, options in found.items():
        assert "--json" not in options or options["--json"].is_flag, f"{command} {verb}"
    without = {verb for verb, options in found.items() if "--json" not in options} - {"reproduce"}
    assert without == WITHOUT_JSON.get(command, set())


@pytest.mark.parametrize("command", sorted(PAPERS))
def test_reproduce_of_every_paper_is_tenfold_run(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((name, _),) = COMMANDS[command][0]["entry-points"]["tenfold.experiments"].items()
    asked: list[Any] = []

    class Found:
        def reproduce(self, *arguments: Any, **options: Any) -> tuple[dict[str, Any], str]:
            asked.append((arguments, options))
            return {"claims": "all of them"}, "the table"

        def failures(self, claims: Any, *, gate: bool) -> list[str]:
            return ["C1"] if gate else []

    def find(experiment: str) -> Found:
        asked.append(experiment)
        return Found()

    monkeypatch.setattr("tenfold.experiments.find_experiment", find)
    for words in (
        ["--scale", "laptop", "--set", "a=1", "--set", "b.c=x", "--resume", "--jobs", "2", "-o", "there"],
        ["--laptop", "--results", "there", "--assert"],
        ["--json"],
        ["--scale"],
        ["--jobs", "many"],
        ["--walk"],
        ["more"],
        ["--help"],
    ):
        own = ran(module(command).main, "reproduce", *words), *map(told, capsys.readouterr()), asked[:]
        asked.clear()
        assert own == (ran(tenfold.main, "run", name, *words), *map(told, capsys.readouterr()), asked)
        asked.clear()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_package_runs_as_a_module(command: str) -> None:
    package = COMMANDS[command][1].partition(".")[0]
    folder = Path(importlib.import_module(package).__path__[0])
    said = f'"""`python -m {package}` is the command `{command}`."""'
    assert (folder / "__main__.py").read_text("utf-8").startswith(said)
