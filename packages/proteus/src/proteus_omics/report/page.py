"""The page of a run: one HTML file that needs nothing but itself, at most about 10 MB."""

from __future__ import annotations

import base64
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from proteus_omics.engine.store import tsv_of
from proteus_omics.models import Hypothesis
from proteus_omics.report.methods import done_steps, families
from proteus_omics.tools.registry import all_tools

if TYPE_CHECKING:
    from proteus_omics.api import Run
    from proteus_omics.hypotheses.references import Table

MOST_FIGURE_BYTES = 5_000_000
"""Of figures within the page, before base64; what is beyond is linked to its file."""
TABLE_ROWS = 12
SCORES = ("reliability", "coherence", "literature", "novelty", "evaluability")
VERDICTS = {
    "verified": "equals its cell",
    "contradicted": "contradicted by the tables",
    "unsupported": "nothing in the tables to compare with",
    "flagged": "cannot be known from this data",
}


def page(run: Run, methods: str) -> str:
    """The HTML text. Names from the data are escaped."""
    environment = Environment(
        loader=PackageLoader("proteus_omics.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["contrast"] = lambda name: str(name).replace("_vs_", " v ")
    return environment.get_template("report.html.j2").render(**_content(run, methods))


def _content(run: Run, methods: str) -> dict[str, Any]:
    hypotheses = [_card(run, one) for one in run.hypotheses]
    status = Counter(one.status for one in run.hypotheses)
    steps = done_steps(run)
    names = {one.id: one for one in run.objectives}
    return {
        "run": run,
        "record": run.record,
        "profile": run.profile,
        "settings": run.record["settings"],
        "design": {role: value for role, value in run.record["settings"]["design"].items() if value},
        "ranked": [one for one in hypotheses if one["of"].status == "verified"],
        "flagged": [one for one in hypotheses if one["of"].status != "verified"],
        "funnel": {
            "proposed": len(hypotheses),
            "verified": status["verified"],
            "not verified": len(hypotheses) - status["verified"],
        },
        "kinds": list(dict.fromkeys(one.kind for one in run.hypotheses)),
        "objectives": run.objectives,
        "objective_titles": {id: one.title for id, one in names.items()},
        "steps": steps,
        "families": families(run).to_dict("records"),
        "tables": [_table(table, run) for table in run.index.values() if not table.of_samples],
        "figures": _figures(run),
        "unseen": unseen(run),
        "methods": methods,
        "scores": SCORES,
        "n_numbers": sum(finding.verdict == "verified" for one in run.hypotheses for finding in one.findings),
    }


def _card(run: Run, one: Hypothesis) -> dict[str, Any]:
    """What a statement is shown with; `names` tells what its terms stand for."""
    cells, names = [], []
    for ref in one.refs:
        table = run.index[ref.table]
        value = table.data[ref.column].iloc[table.row(ref.row)]
        cells.append({"ref": str(ref), "table": ref.table, "column": ref.column, "value": number(value)})
        at = table.row(ref.row)
        if "term" in table.keys and "name" in table.data and table.data["name"].iloc[at]:
            names.append(f"{table.data['term'].iloc[at]}: {table.data['name'].iloc[at]}")
    return {
        "of": one,
        "statement": marked(one),
        "cells": cells,
        "names": list(dict.fromkeys(name for name in names if len(set(name.split(": ", 1))) > 1)),
        "problems": [finding for finding in one.findings if finding.verdict != "verified"],
    }


def marked(one: Hypothesis) -> Markup:
    """The statement with its claims marked by what the guard says of them."""
    pieces, at = [], 0
    for finding in sorted(one.findings, key=lambda finding: (finding.start, -finding.end)):
        if finding.start < at or finding.end <= finding.start:
            continue
        claim = escape(one.statement[finding.start : finding.end])
        said = escape(f"{VERDICTS[finding.verdict]}: {finding.message}")
        pieces += [
            escape(one.statement[at : finding.start]),
            Markup('<mark class="{}" title="{}" tabindex="0">{}</mark>').format(finding.verdict, said, claim),
        ]
        at = finding.end
    return Markup("").join([*pieces, escape(one.statement[at:])])


def number(value: Any) -> str:
    """A cell for people: four significant digits, other things as they are."""
    if isinstance(value, bool) or (not isinstance(value, (int, float)) and not hasattr(value, "dtype")):
        return "" if value is None else str(value)
    found = float(value)
    if not math.isfinite(found):
        return "" if math.isnan(found) else ("\u221e" if found > 0 else "\u2212\u221e")
    written = f"{found:.4g}" if found != int(found) or abs(found) >= 1e6 else f"{int(found)}"
    return written.replace("-", "\u2212", 1) if written.startswith("-") else written


def _table(table: Table, run: Run) -> dict[str, Any]:
    p = next((name for name, role in table.roles.items() if role in ("p", "q")), None)
    data = table.data if p is None else table.data.sort_values(p, kind="stable")
    columns = [str(name) for name in data.columns][:14]
    path = next(one.path for one in run.results if one.table_id == table.id)
    return {
        "id": table.id,
        "n_rows": len(data),
        "columns": columns,
        "text": {name for name in columns if data[name].dtype.kind not in "fiub"},
        "rows": data[columns].head(TABLE_ROWS).astype(object).values.tolist(),
        "path": tsv_of(path),
        "sorted_by": p,
    }


def _figures(run: Run) -> list[dict[str, str]]:
    """Figures as images within the page: an image runs no script, whatever its text says."""
    found, used = [], 0
    for one in run.record["figures"]:
        content = (run.folder / one["path"]).read_bytes()
        source = one["path"]
        if used + len(content) <= MOST_FIGURE_BYTES:
            used += len(content)
            source = "data:image/svg+xml;base64," + base64.b64encode(content).decode()
        tool = all_tools().get(one["tool"])  # a tool of the user's may not be registered here
        title = one["tool"].replace("_", " ") if tool is None else tool.description.removeprefix("Draw ")
        title = title[:1].upper() + title[1:]
        found.append({"source": source, "title": title, "path": one["path"], "tool": one["tool"]})
    return found


def unseen(run: Run) -> list[dict[str, Any]]:
    """Contrasts without a hit, and the least effect that would have been one (q < alpha) with power 0.8."""
    models = run.index.frame("de_models")
    if models is None:
        return []
    none = models[models["n_hits"] == 0]
    return [
        {"contrast": row["contrast"], "n": int(row["n_tested"]), "effect": number(row["detectable_log2fc"])}
        for row in none.to_dict("records")
    ]
