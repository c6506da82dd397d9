"""`reproduce.py`: the analysis again by plain library calls, without a planner (section 2.12)."""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from proteus_omics.report.methods import done_steps

if TYPE_CHECKING:
    from proteus_omics.api import Run

HEAD = '''"""Runs the analysis of {id} again, step by step, and compares every table with the one kept.

    python reproduce.py{usage}

Written by proteus-omics {version}. Exit code 0: every table is identical.
"""

import sys
import tempfile
from pathlib import Path

import anndata
import pandas as pd

from proteus_omics import Design, Knowledge
from proteus_omics.tools.registry import ToolContext, get_tool

HERE = Path(__file__).resolve().parent
DESIGN = {design}
ALPHA, SEED = {alpha!r}, {seed!r}

{knowledge}context = ToolContext(design=Design(**DESIGN), alpha=ALPHA, seed=SEED, knowledge=knowledge)
made = {{"input": anndata.read_h5ad(HERE / "data" / "input.h5ad")}}
wrong, compared = [], 0


def kept(frame):
    """A table as it is after it was written and read."""
    with tempfile.TemporaryDirectory() as folder:
        plain = frame.reset_index(drop=True)
        plain.attrs = {{}}
        plain.to_parquet(Path(folder) / "table.parquet", index=False)
        return pd.read_parquet(Path(folder) / "table.parquet")


def step(id, tool, params, inputs):
    """Run a tool, keep what it makes, compare its tables."""
    global compared
    tool = get_tool(tool)
    given = {{name: made[artifact] for name, artifact in inputs.items()}}
    for name, artifact in tool(given, tool.parse(params), context).items():
        if isinstance(artifact, pd.DataFrame):
            artifact = kept(artifact)
            compared += 1
            before = pd.read_parquet(HERE / "tables" / f"{{id}}__{{name}}.parquet")
            if not before.equals(artifact):
                wrong.append(f"{{id}}__{{name}}")
        made[f"{{id}}.{{name}}"] = artifact


'''
TAIL = """
print(f"{compared} tables compared, {len(wrong)} differ{': ' if wrong else ''}{', '.join(wrong)}")
sys.exit(bool(wrong))
"""


def _knowledge_lines(settings: Mapping[str, Any]) -> str:
    folder, digest = settings["knowledge"] or "knowledge", settings["knowledge_sha256"]
    return (
        f"folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / {folder!r}\n"
        "if not folder.is_dir():\n"
        '    sys.exit(f"there is no folder {folder}: give that of the knowledge as the argument")\n'
        "knowledge = Knowledge.load(folder)\n"
        f"if knowledge.sha256 != {digest!r}:\n"
        '    sys.exit("this is not the knowledge that the run used: give its folder as the argument")\n'
    )


def replay_script(run: Run) -> str:
    """The script's text. It needs this package, and the knowledge folder where the run used one."""
    settings = run.record["settings"]
    design = {name: value for name, value in settings["design"].items() if value not in (None, [], ())}
    needed = bool(settings["knowledge_sha256"])
    head = HEAD.format(
        id=run.id,
        usage=" [KNOWLEDGE_FOLDER]" if needed else "",
        version=run.record["version"],
        design=pprint.pformat(design, sort_dicts=True),
        alpha=settings["alpha"],
        seed=settings["seed"],
        knowledge=_knowledge_lines(settings) if needed else "knowledge = None\n",
    )
    calls = [
        f"step({one.id!r}, {one.tool!r}, {dict(one.params)!r}, {dict(one.inputs)!r})"
        for one in done_steps(run)
    ]
    return head + "\n".join(calls) + "\n" + TAIL
