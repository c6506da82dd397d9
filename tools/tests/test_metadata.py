"""What an index shows of the packages is of one design."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [*sorted(ROOT.glob("packages/*/pyproject.toml")), ROOT / "tools/template/pyproject.toml"]
ABOUT_NO_PAPER = {"tenfold", "lmlab"}
PAPER_OF = {"memoryformer-cpu": "memoryformer"} | {
    f"{paper}-triton": paper for paper in ("fope", "implicit-prm", "memoryformer")
}
"""A kernel package is about its paper's method."""


def project(file: Path) -> dict[str, Any]:
    about: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    return about


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_licence_classifiers_keywords_and_python_are_those_of_all(file: Path) -> None:
    about = project(file)
    assert (about["license"], about["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert about["requires-python"] == ">=3.11,<3.14"
    assert about["authors"] == [{"name": "The Tenfold authors"}]
    assert about["classifiers"] == sorted(about["classifiers"])
    assert {
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Typing :: Typed",
    } <= set(about["classifiers"])
    assert about["keywords"]
    assert about["description"].endswith(".")
    assert about["readme"] == "README.md"


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.parent.name not in ABOUT_NO_PAPER],
    ids=lambda file: file.parent.name,
)
def test_a_package_links_to_the_paper_that_its_experiment_names(file: Path) -> None:
    paper = file.parent.with_name(PAPER_OF.get(file.parent.name, file.parent.name))
    (experiment,) = paper.glob("src/*/reproduce/experiment.py")
    (url,) = re.findall(r'^    url="(.+)",$', experiment.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert project(file)["urls"] == {"Paper": url}
