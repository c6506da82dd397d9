from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import typer

from tenfold import TenfoldError, cli

if TYPE_CHECKING:
    from conftest import Paper

Command = Callable[..., tuple[int, str, str]]


def test_list_reads_metadata_alone_so_that_what_is_broken_or_lacks_its_extra_is_listed_too(
    install: Callable[..., Paper], tenfold: Command
) -> None:
    paper = install()
    install({"__init__.py": "import a_library_that_nobody_has"}, name="unmet")
    broken = install({"__init__.py": "1 / 0"}, name="broken")
    code, out, err = tenfold("list")
    assert (code, err) == (0, "")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines()]
    assert ["growth", "What grows [in a line].", f"{paper.package} 1.0"] in rows
    assert ["broken", "What grows [in a line].", f"{broken.package} 1.0"] in rows
    assert any(row[0] == "unmet" for row in rows)


def test_list_of_one_paper_shows_its_claims_and_their_rules(
    install: Callable[..., Paper], tenfold: Command
) -> None:
    install()
    code, out, _ = tenfold("list", "growth")
    assert code == 0
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines()]
    claims = {row[0]: row for row in rows if row[0] in ("C1", "C2", "C3", "C4")}
    assert len(claims) == 4
    assert claims["C3"][2] == "1,000"
    assert [row[-1] for row in claims.values()] == [
        "quick",
        "quick",
        "quick",
        "",
    ]  # C4 waits for a paper's scale
    install({"__init__.py": "import a_library_that_nobody_has"}, name="unmet")
    code, _, err = tenfold("list", "unmet")
    assert (code, "needs a_library_that_nobody_has" in err) == (2, True)


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["data", "--help"]])
def test_what_is_asked_for_often_imports_no_experiment_and_nothing_heavy(
    paper: Paper, arguments: list[str]
) -> None:
    heavy = {"torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "jinja2", "pooch", "lpa"}
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('LOADED', sorted({heavy | {paper.package}} & set(sys.modules))))\n"
        f"from tenfold.cli import main\nmain({arguments})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=paper.environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_run_shows_the_claims_and_where_the_results_are(
    paper: Paper, tenfold: Command, tmp_path: Path
) -> None:
    code, out, err = tenfold("run", "growth", "--scale", "quick", "--set", "seeds=[0, 1]")
    assert code == 0  # although C3 did not hold
    *most, last = err.splitlines()  # no terminal: a line for each trial that ended
    assert [line.partition(":")[0] for line in most] == ["trials 1/4", "trials 2/4", "trials 3/4"]
    assert re.fullmatch(r"trials 4/4: arm '(slow|fast)' seed [01] ended", last)
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith("│ C")}
    assert rows["C1"].split("│")[-2].strip() == "held"
    assert rows["C3"].split("│")[-2].strip() == "did not hold"
    assert rows["C4"].split("│")[-2].strip() == "not tested at this scale"
    assert [cell.strip() for cell in rows["C3"].split("│")[3:5]] == ["1,000", "4"]
    assert "[" in rows["C1"].split("│")[4]  # an interval
    assert "Results: results/growth/quick" in out
    assert (tmp_path / "results" / "growth" / "quick" / "claims.json").exists()


def test_run_as_json_and_with_assert(paper: Paper, tenfold: Command, tmp_path: Path) -> None:
    code, out, err = tenfold("run", "growth", "--quick", "-o", "here", "--json", "--assert")
    assert (code, err.splitlines()[-1]) == (1, "growth: not held: C2, C3")
    assert json.loads(out) == json.loads((tmp_path / "here" / "growth" / "quick" / "claims.json").read_text())


def test_an_exact_claim_that_does_not_hold_ends_with_1_and_the_gating_ones_are_listed(
    install: Callable[..., Paper], source: str, tenfold: Command
) -> None:
    named = source.replace("claims=CLAIMS,", "claims=CLAIMS,\n    exact=['C3'],\n    gating=['C1'],")
    install({"__init__.py": named})
    code, out, err = tenfold("run", "growth", "--set", "seeds=[0, 1]", "--set", "steps=1")
    assert (code, err.splitlines()[-1], "Results: " in out) == (1, "growth: not held: C3", True)
    assert "gating (--assert): C1" in tenfold("list", "growth")[1]


def test_reproduce_is_run_as_a_verb_of_the_paper_s_own_command(
    paper: Paper, tenfold: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    own = typer.Typer(rich_markup_mode=None)
    own.callback()(lambda: None)

    @own.command(
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
    )
    def reproduce(context: typer.Context) -> None:
        """Run growth."""
        cli.reproduce("growth", context)

    def said(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            own(["reproduce", *arguments], prog_name="grow")
        return int(ended.value.code or 0), *capsys.readouterr()

    code, out, _ = said("--help")
    assert (code, out.splitlines()[0], "Run growth." in out) == (0, "Usage: grow reproduce [OPTIONS]", True)
    theirs = tenfold("run", "--help")[1]
    assert out.partition("Options:")[2] == theirs.partition("Options:")[2]
    code, out, err = said("--jobs", "2", "--set", "steps=3", "--set", "seeds=[0, 1]", "--assert", "--json")
    assert (code, err.splitlines()[-1]) == (1, "growth: not held: C3")
    assert [claim["id"] for claim in json.loads(out)["claims"]] == ["C1", "C2", "C3", "C4"]
    code, _, err = said("--jobs", "many")
    assert (code, "valid integer" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "growth", "--quick", "--laptop"], ["--quick and --laptop: choose one"]),
        (["run", "grwoth"], ["no experiment 'grwoth'", "growth"]),
        (["run", "growth", "--scale", "huge"], ["no scale 'huge'", "quick"]),
        (["run", "growth", "--set", "step=3"], ["no key 'step'", "did you mean steps?"]),
        (["run", "growth", "--set", "steps=-1"], ["steps = -1", "greater than 0"]),
        (["run", "growth", "--set", "steps"], ["key=value"]),
        (["run", "growth", "--jobs", "0"], ["--jobs 0"]),
        (["run", "growth", "--jobs", "many"], ["--jobs", "valid integer"]),
        (["run"], ["Missing argument", "paper"]),
        (["walk"], ["walk"]),
        (["compare", "a", "b"], ["a is no finished run"]),
    ],
)
def test_a_users_mistake_ends_with_2_and_one_message(
    paper: Paper, tenfold: Command, arguments: list[str], parts: list[str]
) -> None:
    code, _, err = tenfold(*arguments)
    assert code == 2
    assert "Traceback" not in err
    for part in parts:
        assert part in err


def test_a_failing_trial_ends_with_1(paper: Paper, tenfold: Command) -> None:
    code, out, err = tenfold("run", "growth", "--set", "raising=[1]")
    assert code == 1
    assert "arm 'slow' seed 1: ValueError: seed 1 is unlucky" in err
    assert "results/growth/quick/log.txt" in err
    assert "Traceback" not in err
    assert "held" not in out


def test_a_run_elsewhere_in_use_and_in_a_folder_that_cannot_be(
    paper: Paper, tenfold: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = tenfold("run", "growth", "--results", "file/results")
    assert (code, "Traceback" in err) == (1, False)
    assert "file/" in err
    code, out, _ = tenfold("run", "growth", "--set", "steps=1", "--results", "else where")
    assert (code, "Results: else where/growth/quick" in out) == (0, True)


def test_compare_prints_both_runs(paper: Paper, tenfold: Command) -> None:
    tenfold("run", "growth", "--set", "growth.rate=2.0", "--results", "a")
    tenfold("run", "growth", "--set", "growth.rate=3.0", "--results", "b")
    code, out, _ = tenfold("compare", "a/growth/quick", "b/growth/quick")
    assert code == 0
    config = next(line for line in out.splitlines() if "growth.rate" in line)
    assert [cell.strip() for cell in config.strip("│").split("│")] == ["growth.rate", "2.0", "3.0"]
    trials = next(line for line in out.splitlines() if line.startswith("│ trials"))
    assert [cell.strip() for cell in trials.strip("│").split("│")] == ["trials", "6", "6", "+0 (+0.0%)"]
    verdicts = [line.split("│")[3:5] for line in out.splitlines() if line.startswith("│ C")]
    assert [cell.strip() for cell in verdicts[1]] == ["held", "did not hold"]  # 1 - 1/r: 0.5 and 0.67


def test_data_commands_call_the_data_functions(tenfold: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"books": SimpleNamespace(available=lambda: True, licence="public domain")}

    def get(name: str) -> Path:
        if name not in known:
            raise TenfoldError(f"no data named {name}")
        return Path("/data") / name

    monkeypatch.setattr("tenfold.data.datasets", lambda: known)
    monkeypatch.setattr("tenfold.data.get", get)
    monkeypatch.setattr("tenfold.data.path", lambda name: None)
    assert tenfold("data", "get", "books")[:2] == (0, "/data/books\n")
    code, _, err = tenfold("data", "get", "boks")
    assert (code, err) == (1, "tenfold: no data named boks\n")
    code, out, _ = tenfold("data", "list")
    assert code == 0
    row = next(line for line in out.splitlines() if "books" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["books", "public domain", "yes"]
    code, _, err = tenfold("data", "path", "books")
    assert code == 1
    assert "tenfold data get books" in err


def test_report_is_written_from_the_results(tenfold: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.report.write_report", lambda results, tell: results / "index.html")
    assert tenfold("report", "--results", "here")[:2] == (0, "Report: here/index.html\n")


def test_the_report_is_opened_only_where_there_is_a_screen(
    tenfold: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("tenfold.report.write_report", lambda results, tell: results / "index.html")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", "")
    assert tenfold("report", "--open")[:2] == (0, "Report: results/index.html\n")
    assert opened == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert tenfold("report")[0] == 0
    assert opened == []
    assert tenfold("report", "--open")[0] == 0
    assert opened == [(tmp_path / "results" / "index.html").as_uri()]


def test_importing_tenfold_is_light() -> None:
    """A trial process pays for every import."""
    heavy = "{'matplotlib', 'numpy', 'scipy', 'pooch', 'jinja2', 'rich', 'typer', 'torch', 'pandas'}"
    code = f"import sys, tenfold, tenfold.pool; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_progress_bar_with_the_time_left(paper: Paper, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        paper.command("run", "growth", "--set", "steps=6", "--set", "pause=0.06"),
        cwd=tmp_path,
        env=paper.environment() | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed: the command has ended
                break
    os.close(ours)
    assert process.wait(600) == 0
    text = shown.decode(errors="replace")
    assert "trials 1/6" in text
    assert "fast seed 0" in text
    assert "0:00:0" in text
    assert "%" in text
