"""What was done, in words that a methods section can take over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from proteus_omics.models import Step, Workflow
from proteus_omics.tools.registry import all_tools

if TYPE_CHECKING:
    from proteus_omics.api import Run


FAMILY = ("contrast", "collection")
"""Columns by which a table's tests are in families."""
GSEA = "gsea_prerank"
"""The tool whose q is not Benjamini and Hochberg's."""


def done_steps(run: Run) -> list[Step]:
    """Every finished step once, in the order in which they ran."""
    workflows = [Workflow.model_validate(one) for one in run.record["workflows"]]
    steps = {step.id: step for one in workflows for step in one.steps if step.status == "done"}
    return list(steps.values())


def families(run: Run) -> pd.DataFrame:
    """Every family of tests over which q-values were made: `table, contrast, collection, n_tested, n_hits`.

    Of gene sets each collection is one, within a contrast.
    """
    alpha, rows = float(run.record["settings"]["alpha"]), []
    for id, table in run.index.items():
        q = next((name for name, role in table.roles.items() if role == "q"), None)
        if q is None:
            continue
        whole = pd.Series("", table.data.index)
        keys = [table.data.get(name, whole).astype(str).rename(name) for name in FAMILY]
        for names, part in table.data.groupby(keys, sort=False):
            tested, hits = int(part[q].notna().sum()), int((part[q] < alpha).sum())
            rows.append((id, *names, tested, hits))
    return pd.DataFrame(rows, columns=["table", *FAMILY, "n_tested", "n_hits"])


def methods_text(run: Run) -> str:
    """Markdown: data, design, steps with their parameters, families of tests, software, citations."""
    return "\n".join(_lines(run)) + "\n"


def _lines(run: Run) -> Iterator[str]:
    record, profile, tools = run.record, run.profile, all_tools()
    settings = record["settings"]
    yield f"# Methods of run {run.id}\n"
    yield (
        f"Data: {profile.n_obs} {'samples' if profile.modality == 'bulk' else 'cells'} x {profile.n_vars} "
        f"{'proteins' if profile.modality == 'bulk' else 'markers'} ({profile.modality}, scale "
        f"{profile.scale}), {profile.missing.overall:.1%} missing; sha256 `{record['input_sha256']}`.\n"
    )
    design = ", ".join(f"{role} = {value}" for role, value in settings["design"].items() if value) or "none"
    yield f"Design: {design}. Significance: q < {settings['alpha']:g}. Seed: {settings['seed']}.\n"
    yield from (f"- Note: {warning}" for warning in profile.warnings)
    yield f"\n## Steps\n\nPlanned by `{settings['planner']}`; every step is a typed function.\n"
    for number, step in enumerate(done_steps(run), start=1):
        tool = tools.get(step.tool)
        what = tool.description if tool is not None else "a tool that is not installed here"
        params = _written(
            tool.parse(step.params).model_dump(mode="json") if tool is not None else step.params
        )
        yield f"{number}. `{step.tool}`{params}: {what}"
    yield f"\n## Families of tests\n\nA row is a family, over which q is made. {_adjusted(run)}\n"
    yield "| table | contrast and collection | tested | q < alpha |\n| --- | --- | ---: | ---: |"
    for row in families(run).itertuples(index=False):
        where = _cell(", ".join(filter(None, (row.contrast, row.collection))))
        yield f"| {row.table} | {where} | {row.n_tested} | {row.n_hits} |"
    yield "\n## Software and citations\n"
    yield "; ".join(f"{name} {number}" for name, number in sorted(record["environment"].items())) + ".\n"
    used = {step.tool for step in done_steps(run)}
    yield from sorted(
        {f"- {tools[name].citation}" for name in used if name in tools and tools[name].citation}
    )


def _adjusted(run: Run) -> str:
    """How q was made."""
    otherwise = sorted(one.table_id for one in run.results if one.kind == GSEA)
    if not otherwise:
        return "It is that of Benjamini and Hochberg."
    return (
        f"It is that of Benjamini and Hochberg, but in {', '.join(otherwise)} the FDR of GSEA, from "
        "normalised scores of permuted genes, as gseapy gives it."
    )


def _written(params: dict[str, Any]) -> str:
    shown = ", ".join(f"{name} = {value}" for name, value in params.items() if value not in (None, [], {}))
    return f" ({shown})" if shown else ""


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
