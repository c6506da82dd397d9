from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    scope: dict[str, object] = {}
    exec(example, scope)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("altermagnet i 6 Group(number=68, symbol='p321')")
    assert "chirality" in shown[1]
    generic, standard = map(float, shown[-1].split())
    assert standard < 1e-12 < generic
