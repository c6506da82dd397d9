"""The README's example runs as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

import lpa

README = Path(__file__).parents[1] / "README.md"


def test_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    # The same model with two layers: the test is about the calls, not about twelve times the same matrices.
    exec(code.replace("num_hidden_layers=12", "num_hidden_layers=2"), names)
    assert "LPA / dense" in capsys.readouterr().out
    assert lpa.is_lpa(names["again"])
    assert not lpa.is_lpa(names["dense"])
