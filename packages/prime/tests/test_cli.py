"""The `implicit-prime` command as a user meets it."""

from __future__ import annotations

import pytest

from implicit_prime.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of a command that ends with `code`; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, err
    assert "Traceback" not in err
    return out, err


def test_an_unknown_scale_is_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "reproduce", "--scale", "huge", code=2)[1]
    assert "'huge'" in told
    assert "quick" in told
