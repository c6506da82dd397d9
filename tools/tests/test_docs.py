"""What the pages of docs/ say of the code is so: messages, files to launch, every paper."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
SCALING_OUT = (ROOT / "docs" / "scaling-out.md").read_text(encoding="utf-8")
SHARED, OTHERS = "Any experiment", "The workspace"
PAPERS = {
    path.parent.name
    for path in ROOT.glob("packages/*/pyproject.toml")
    if '"tenfold.experiments"' in path.read_text(encoding="utf-8")
}


def sections() -> dict[str, list[str]]:
    """The messages that each section quotes; what follows a message is indented."""
    found: dict[str, list[str]] = {}
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL):
        found[title] = re.findall(r"^`(.+)`\n:   ", text, flags=re.MULTILINE)
    return found


def said_in(package: str) -> Iterator[str]:
    """All texts of a package's code; what is filled in at run time is the character NUL."""
    for path in (ROOT / "packages" / package / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_paper_has_its_section() -> None:
    assert sections().keys() == {SHARED, OTHERS} | PAPERS
    assert all(len(messages) >= 5 for title, messages in sections().items() if title in PAPERS)


@pytest.mark.parametrize("title", sorted({SHARED} | PAPERS))
def test_messages_are_those_of_the_code(title: str) -> None:
    packages = ("tenfold", "lmlab") if title == SHARED else (title,)
    texts = [text for package in packages for text in said_in(package)]
    unknown = []
    for message in sections()[title]:
        pattern = re.compile(".*?".join(map(re.escape, message.split("..."))), re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            unknown.append(message)
    assert unknown == []


def test_every_paper_has_its_launch_files_on_the_page_of_scaling_out() -> None:
    paper, named = "", {name: set[str]() for name in PAPERS}
    for row in re.findall(r"^\| (.*) \|$", SCALING_OUT, flags=re.MULTILINE):
        first = re.match(r"`([a-z-]+)` \|", row)
        paper = first.group(1) if first else paper
        if paper:
            named[paper] |= set(re.findall(r"launch/[\w./-]+", row))
    assert all(named.values())
    missing = [
        f"packages/{name}/{file}"
        for name, files in named.items()
        for file in sorted(files)
        if not (ROOT / "packages" / name / file).is_file()
    ]
    assert missing == []
