from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold import Records, Trial, Verdict, find_experiment, run_experiment
from tenfold.records import measurement_of

README = Path(__file__).parents[1] / "README.md"


def example() -> dict[str, str]:
    """The files of the README's example: code blocks whose first line names their file."""
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return dict(blocks)


def test_the_example_is_found_and_its_claim_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = example()
    assert list(files) == ["antithetic/experiment.py", "antithetic/quick.toml", "pyproject.toml"]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "antithetic" / "__init__.py").write_text("")
    entries = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]["tenfold.experiments"]
    info = tmp_path / "antithetic-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: antithetic\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[tenfold.experiments]\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)

    outcome = run_experiment(
        find_experiment("antithetic"), "quick", results=tmp_path / "results", tell=pytest.fail
    )
    (claim,) = outcome.claims.claims
    assert claim.verdict == Verdict.HELD
    assert claim.ours is not None
    # Of 500 independent pairs, exp(U) has standard deviation 0.492 and the antithetic pair's mean 0.0625:
    # expected absolute errors sqrt(2/pi) of 0.492/sqrt(1000) = 0.0124 and 0.0625/sqrt(500) = 0.0022.
    assert claim.compared_with["error_plain"].mean == pytest.approx(0.0124, rel=0.6)
    assert claim.ours.mean == pytest.approx(0.0022, rel=0.6)
    for module in [name for name in sys.modules if name.partition(".")[0] == "antithetic"]:
        monkeypatch.delitem(sys.modules, module)


def test_the_figures_of_the_readme_are_drawn(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(from matplotlib.*?)```", README.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"ARMS": ("plain", "antithetic")}
    exec(code, names)
    trial = Trial("plain", 0, {})
    records = Records(measurement_of(trial, draws, {"error": 1 / draws}) for draws in (100, 200, 300))
    (figure,) = names["figures"](None, {}, records, tmp_path)
    assert figure.path == tmp_path / "error.svg"
    assert {path.name for path in tmp_path.iterdir()} == {"error.svg", "error.png"}


@pytest.mark.parametrize("command", ["run", "report", "compare", "data"])
def test_the_commands_and_options_that_the_readme_names_exist(
    tenfold: Callable[..., tuple[int, str, str]], command: str
) -> None:
    code, out, _ = tenfold(command, "--help")
    assert code == 0
    listed = {
        "run": ["--scale", "--set", "--resume", "--jobs", "--results", "--assert", "--json"],
        "report": ["--results", "--open"],
    }
    listed |= {"data": ["list", "get", "path"], "compare": []}
    for word in listed[command]:
        assert word in out
        assert word in README.read_text()
