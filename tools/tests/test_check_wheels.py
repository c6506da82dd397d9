"""What the wheel check must find: missing files, extras in the core, a paper that needs the ground."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from check_wheels import (
    OF_THE_HUB,
    ROOT,
    SMALLER,
    CheckError,
    Wheel,
    check_contents,
    check_core,
    examples,
    reachable,
    run_examples,
)

PROJECT = {
    "name": "zeta-ball",
    "version": "0.1.0",
    "readme": "README.md",
    "dependencies": ["numpy>=1.26"],
    "optional-dependencies": {"reproduce": ["tenfold>=0.1"], "plot": ["matplotlib"]},
    "entry-points": {"tenfold.experiments": {"zeta-ball": "zeta_ball:EXPERIMENT"}},
}
INSTALLED = {
    "zeta-ball": ["numpy>=1.26", "tenfold>=0.1 ; extra == 'reproduce'", "matplotlib ; extra == 'plot'"],
    "numpy": ["old ; python_version < '3'"],
}
METADATA = (
    "Metadata-Version: 2.4\nName: zeta-ball\nVersion: {version}\nLicense-Expression: Apache-2.0\n"
    "Description-Content-Type: text/markdown\n\n# zeta-ball\n"
)


def wheel(folder: Path, leave_out: str = "", version: str = "0.1.0", **project: Any) -> Wheel:
    """A wheel of a package with three files; `leave_out` names one that the wheel lacks."""
    source = folder / "package" / "src" / "zeta_ball"
    (source / "configs").mkdir(parents=True)
    (folder / "package" / "README.md").write_text("# zeta-ball\n")
    info = "zeta_ball-0.1.0.dist-info"
    contents = {f"{info}/METADATA": METADATA.format(version=version), f"{info}/licenses/LICENSE": "Apache"}
    for name in ("__init__.py", "py.typed", "configs/quick.toml"):
        (source / name).write_text("")
        contents[f"zeta_ball/{name}"] = ""
    path = folder / "zeta_ball-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in contents.items():
            if name != leave_out:
                archive.writestr(name, text)
    return Wheel(path, folder / "package", PROJECT | project)


def test_reachable_follows_extras_only_where_they_are_asked_for() -> None:
    everything = INSTALLED | {
        "tenfold": ["rich[jupyter]"],
        "rich": ["ipython; extra == 'jupyter'"],
        "ipython": [],
    }
    assert reachable("zeta-ball", "", everything) == {"zeta-ball", "numpy"}
    assert reachable("zeta-ball", "reproduce", everything) == {
        "zeta-ball",
        "numpy",
        "tenfold",
        "rich",
        "ipython",
    }


def test_a_sound_wheel_passes(tmp_path: Path) -> None:
    check_contents(wheel(tmp_path))
    check_core(wheel(tmp_path / "again"), INSTALLED)


@pytest.mark.parametrize(
    ("leave_out", "message"),
    [
        ("zeta_ball/configs/quick.toml", r"lacks zeta_ball/configs/quick\.toml"),
        ("zeta_ball/py.typed", r"py\.typed"),
        ("zeta_ball-0.1.0.dist-info/licenses/LICENSE", "LICENSE is missing"),
    ],
)
def test_a_file_that_the_wheel_lacks_is_named(tmp_path: Path, leave_out: str, message: str) -> None:
    with pytest.raises(CheckError, match=message):
        check_contents(wheel(tmp_path, leave_out))


def test_a_wrong_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"version 0\.2\.0"):
        check_contents(wheel(tmp_path, version="0.2.0"))


@pytest.mark.parametrize(
    ("project", "installed", "message"),
    [
        ({}, INSTALLED | {"matplotlib": []}, "drew in matplotlib"),
        (
            {"dependencies": ["tenfold"]},
            {"zeta-ball": ["tenfold"], "tenfold": []},
            "a paper's core needs tenfold",
        ),
        (
            {"dependencies": ["matplotlib"]},
            {"zeta-ball": ["matplotlib"], "matplotlib": []},
            "the extra plot names matplotlib, which the core has",
        ),
    ],
)
def test_a_core_that_is_too_heavy_is_found(
    tmp_path: Path, project: Mapping[str, Any], installed: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(CheckError, match=message):
        check_core(wheel(tmp_path, **project), installed)


EXAMPLES = """
```python
import json

from elsewhere.deep import thing
```

```python
print("max_steps=200")
```

```python
load("Qwen/Qwen2.5-0.5B")
```
"""


def test_examples_run_one_after_another_and_those_that_lack_a_library_are_told(tmp_path: Path) -> None:
    package = wheel(tmp_path)
    (package.package / "README.md").write_text(EXAMPLES)
    lacking, smaller = examples(package)
    assert smaller == 'print("max_steps=2")\n'
    told = run_examples(Path(sys.executable), [lacking, smaller, "json.dumps([])"])
    assert told == {lacking: "No module named 'elsewhere'"}
    with pytest.raises(CheckError, match="ZeroDivisionError: division by zero"):
        run_examples(Path(sys.executable), ["1 / 0"])


def test_what_is_said_of_examples_is_in_them() -> None:
    readmes = "".join(path.read_text("utf-8") for path in ROOT.glob("packages/*/README.md"))
    found = "".join(re.findall(r"```python\n(.*?)```", readmes, flags=re.DOTALL))
    assert [words for words in (*OF_THE_HUB, *SMALLER) if words not in found] == []
