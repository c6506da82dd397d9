from __future__ import annotations

import sys

import pytest

from medxpertqa.cli import main


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["medxpertqa", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_parse_shows_what_each_parser_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "parse", "I think it is D") == 0
    shown = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert shown == [["official", "I"], ["official-r1", "-"], ["official-qvq", "D"], ["robust", "D"]]


def test_a_mistake_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "parse", "A", "--options", "1") == 2
    assert capsys.readouterr().err.startswith("medxpertqa: n_options is 1; it must be 2 to 26")
