"""Packages that may not import each other know the same names of keys and tokens."""

from __future__ import annotations

from pathlib import Path

PACKAGES = Path(__file__).parents[2] / "packages"


def test_the_copies_are_equal() -> None:
    copies = sorted(PACKAGES.glob("*/src/*/secrecy.py"))
    assert [path.parent.name for path in copies] == ["implicit_prm", "medxpertqa", "toedit"]
    assert len({path.read_bytes() for path in copies}) == 1
