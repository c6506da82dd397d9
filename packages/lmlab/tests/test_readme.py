"""What the README shows works as it stands, on a smaller text and for fewer steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lmlab.cli import main
from lmlab.corpora import CORPORA

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def test_the_example_in_python(small_corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(code.replace('"docs"', repr(small_corpus)).replace("max_steps=200", "max_steps=2"), {})
    perplexity, bits = map(float, capsys.readouterr().out.split())
    assert 1 < perplexity < 2048
    assert 0 < bits < 11


@pytest.mark.slow
def test_the_example_from_a_file(
    small_corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = re.findall(r"```toml\n# run.toml\n(.*?)```", README, flags=re.DOTALL)
    Path("run.toml").write_text(run.replace('"docs"', f'"{small_corpus}"'))
    (command,) = re.findall(r"^lmlab (train .* runs/first) \[", README, flags=re.MULTILINE)
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(command), "--set", "training.max_steps=2", "--set", "training.warmup_steps=0"])
    assert end.value.code == 0, capsys.readouterr().err
    (command,) = re.findall(r"^lmlab (eval .*?) \[", README, flags=re.MULTILINE)
    with pytest.raises(SystemExit) as end:
        main([argument.replace("docs", small_corpus) for argument in shlex.split(command)])
    assert end.value.code == 0, capsys.readouterr().err
    assert "512 tokens" in capsys.readouterr().out


def test_the_table_names_all_corpora() -> None:
    assert re.findall(r"^\| `(\w+)` \| \w+ \|", README, flags=re.MULTILINE) == list(CORPORA)
