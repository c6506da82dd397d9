"""Scaffold a paper: packages/NAME, a miniature that runs, made of tools/template and put under the contracts.

    python tools/new_paper.py proteus "Proteus: ..."

Then `make lint test NAME` works, and the miniature is replaced room by room.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "tools" / "template"
ROOT_PACKAGES = re.compile(r"^root_packages = \[(.*)\]$", flags=re.MULTILINE)


def main() -> None:
    """Scaffold the paper that the command line names."""
    parser = argparse.ArgumentParser(description="Make packages/NAME, a paper in miniature that runs.")
    parser.add_argument("name", help="the package, for example implicit-prm")
    parser.add_argument("title", help="the paper's title, at most 80 letters")
    arguments = parser.parse_args()
    try:
        package = scaffold(arguments.name, arguments.title, ROOT)
    except ValueError as error:
        parser.error(str(error))
    made = package.relative_to(ROOT)
    if code := subprocess.run([ROOT / "tools" / "uv", "lock"], cwd=ROOT).returncode:
        parser.exit(
            code, f"{made} is there, and uv.lock could not be written: see above, then tools/uv lock\n"
        )
    print(f"{made} is there. Next: make lint test-{arguments.name} {arguments.name}")


def scaffold(name: str, title: str, root: Path) -> Path:
    """Write the package into the workspace at `root` and return its folder.

    Raises `ValueError` for a name that is taken or is no package name, and for a title that fits no line.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ValueError(f"{name!r} is no package name: small letters and digits, words joined by hyphens")
    module = name.replace("-", "_")
    words = "".join(map(str.capitalize, name.split("-")))
    if module in sys.stdlib_module_names:
        raise ValueError(f"{name!r} would hide Python's own module {module}")
    if not 0 < len(title) <= 80 or not title.isprintable() or set(title) & set('"\\'):
        raise ValueError("the title needs 1 to 80 letters on one line, without double quotes and backslashes")
    package = root / "packages" / name
    if package.exists():
        raise ValueError(f"packages/{name} exists")
    for source in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
        if "__pycache__" in source.parts:
            continue
        target = package / source.relative_to(TEMPLATE).as_posix().replace("new_paper", module)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        text = text.replace("new_paper", module).replace("new-paper", name).replace("A New Paper", title)
        text = text.replace("NewPaper", words)
        target.write_text(text, encoding="utf-8")
    shutil.copyfile(root / "LICENSE", package / "LICENSE")
    _put_under_contracts(module, root / "pyproject.toml")
    # The order of names and the breaks of lines depend on the name.
    for command in (["check", "--quiet", "--select", "I,RUF022", "--fix"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, package], cwd=root, check=True)
    return package


def _put_under_contracts(module: str, pyproject: Path) -> None:
    text = pyproject.read_text(encoding="utf-8")
    found = ROOT_PACKAGES.search(text)
    if not found:
        raise ValueError(f"{pyproject} has no line `root_packages = [...]`")
    listed = ", ".join(sorted([*found.group(1).split(", "), f'"{module}"']))
    pyproject.write_text(text.replace(found.group(), f"root_packages = [{listed}]"), encoding="utf-8")


if __name__ == "__main__":
    main()
