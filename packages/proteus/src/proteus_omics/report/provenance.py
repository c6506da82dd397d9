"""Provenance in W3C PROV-JSON: files, the steps that made them, statements and the tables they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proteus_omics.engine.store import Store
from proteus_omics.report.methods import done_steps

if TYPE_CHECKING:
    from proteus_omics.api import Run

PREFIX = {"proteus": "urn:proteus-omics:", "prov": "http://www.w3.org/ns/prov#"}


def provenance(run: Run) -> dict[str, Any]:
    """The document; it holds no time, so that the same run gives the same bytes."""
    record = run.record
    entity: dict[str, Any] = {
        "proteus:input": {"proteus:path": "data/input.h5ad", "proteus:sha256": record["input_sha256"]}
    }
    activity: dict[str, Any] = {}
    used: dict[str, Any] = {}
    generated: dict[str, Any] = {}
    derived: dict[str, Any] = {}
    outputs = {
        event["step"]: event["outputs"]
        for event in Store(run.folder).events()
        if event["event"] == "step_finished"
    }
    for step in done_steps(run):
        activity[f"proteus:{step.id}"] = {"proteus:tool": step.tool, "proteus:params": step.params}
        for name, id in sorted(step.inputs.items()):
            used[f"_:{step.id}.in.{name}"] = {
                "prov:activity": f"proteus:{step.id}",
                "prov:entity": f"proteus:{id}",
                "prov:role": name,
            }
        for name, one in sorted(outputs.get(step.id, {}).items()):
            id = f"proteus:{step.id}.{name}"
            entity[id] = {"proteus:path": one["path"], "proteus:sha256": one["sha256"]}
            generated[f"_:{step.id}.out.{name}"] = {
                "prov:entity": id, "prov:activity": f"proteus:{step.id}",
            }  # fmt: skip
    tables = {
        one.table_id: next(id for id, made in entity.items() if made.get("proteus:path") == one.path)
        for one in run.results
        if any(made.get("proteus:path") == one.path for made in entity.values())
    }
    for one in run.hypotheses:
        entity[f"proteus:{one.id}"] = {"proteus:statement": one.statement, "proteus:status": one.status}
        for table in sorted({ref.table for ref in one.refs} & set(tables)):
            derived[f"_:{one.id}.{table}"] = {
                "prov:generatedEntity": f"proteus:{one.id}", "prov:usedEntity": tables[table],
                "proteus:cells": [str(ref) for ref in one.refs if ref.table == table],
            }  # fmt: skip
    agents = {
        "proteus:planner": {"proteus:name": record["settings"]["planner"]},
        "proteus:software": {"prov:type": "prov:SoftwareAgent", "proteus:version": record["version"]},
    }
    return {
        "prefix": PREFIX,
        "entity": entity,
        "activity": activity,
        "agent": agents,
        "used": used,
        "wasGeneratedBy": generated,
        "wasDerivedFrom": derived,
        "wasAssociatedWith": {
            f"_:{id}": {"prov:activity": id, "prov:agent": "proteus:software"} for id in activity
        },
    }
