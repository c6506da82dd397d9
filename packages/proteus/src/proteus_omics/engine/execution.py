"""Running a step once: inputs, tool, outputs on disk; a step that was finished before is not run again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from proteus_omics.engine.budget import Meter
from proteus_omics.engine.store import INPUT_FILE, Store, tsv_of, write_whole
from proteus_omics.errors import ToolError
from proteus_omics.hypotheses.references import Table, Tables
from proteus_omics.models import Result, Step, content_id
from proteus_omics.planner.base import ArtifactInfo
from proteus_omics.tools.registry import ArtifactKind, Tool, ToolContext, get_tool

if TYPE_CHECKING:
    from anndata import AnnData

    from proteus_omics.tools.registry import Artifact

INPUT = "input"
"""The id of the data."""


class NothingToWorkOn(ToolError):
    """An earlier step failed; that it did is told there."""


@dataclass(frozen=True)
class Kept:
    """An artifact on disk."""

    info: ArtifactInfo
    path: str
    sha256: str
    table_id: str = ""


class Executor:
    """Runs steps, and knows what they left."""

    def __init__(
        self, store: Store, data: AnnData, data_sha256: str, context: ToolContext, meter: Meter
    ) -> None:
        self.store = store
        self.context = context
        self.meter = meter
        self.results: list[Result] = []
        self.artifacts: dict[str, Kept] = {
            INPUT: Kept(ArtifactInfo(INPUT, "matrix", "matrix", INPUT), INPUT_FILE, data_sha256)
        }
        self._loaded: dict[str, Any] = {INPUT: data}
        self._finished = {
            event["key"]: event for event in store.events() if event["event"] == "step_finished"
        }
        self._done: dict[str, Step] = {}

    # ---- what is there

    @property
    def infos(self) -> dict[str, ArtifactInfo]:
        """What a planner may know of the artifacts."""
        return {id: kept.info for id, kept in self.artifacts.items()}

    def tables(self, steps: frozenset[str] | None = None) -> Tables:
        """Result tables by their ids: all, or those of some steps."""
        chosen = [one for one in self.results if steps is None or one.produced_by in steps]
        return Tables({one.table_id: self._table(one) for one in chosen})

    def _table(self, result: Result) -> Table:
        id = next(id for id, kept in self.artifacts.items() if kept.table_id == result.table_id)
        return Table(result.table_id, self.load(id), result.key_columns, result.columns)

    def load(self, id: str) -> Any:
        """An artifact by its id; of figures the path."""
        if id not in self._loaded:
            kept = self.artifacts[id]
            self._loaded[id] = self.store.load(kept.info.kind, kept.path, kept.sha256)
        return self._loaded[id]

    def adopt(self, other: Store) -> None:
        """Take another run's finished steps by their keys; their files are copied when they are used."""
        for event in other.events():
            if event["event"] == "step_finished" and event["key"] not in self._finished:
                kept = {
                    name: one | {"from": str(other.folder)} for name, one in event["outputs"].items()
                    if other.intact(one["path"], one["sha256"])
                }  # fmt: skip
                if len(kept) == len(event["outputs"]):
                    self._finished[event["key"]] = event | {"outputs": kept}

    def figures(self) -> list[dict[str, str]]:
        """Path, name and tool of every figure, in the order in which they were made."""
        return [
            {"path": kept.path, "name": kept.info.name, "tool": kept.info.produced_by}
            for kept in self.artifacts.values()
            if kept.info.kind == "figure"
        ]

    def used_imputation(self, table_id: str) -> bool:
        """Whether a step before the table's put values in place of missing ones."""
        made = next((one.produced_by for one in self.results if one.table_id == table_id), None)
        open_ = [] if made is None else [made]
        while open_:
            step = self._done[open_.pop()]
            if step.tool == "impute":
                return True
            open_ += [id.rpartition(".")[0] for id in step.inputs.values() if id != INPUT]
        return False

    # ---- running

    def key(self, step: Step, tool: Tool) -> str:
        """What a step's outputs depend on, hashed: the same key, the same outputs (section 2.12)."""
        inputs = {name: self.artifacts[id].sha256 for name, id in step.inputs.items()}
        knowledge = self.context.knowledge.sha256 if self.context.knowledge is not None else ""
        known = (self.context.design.model_dump(), self.context.alpha, self.context.seed, knowledge)
        params = tool.parse(step.params).model_dump(mode="json")
        return content_id("key", tool.name, tool.version, params, inputs, known)

    def run(self, step: Step) -> tuple[Step, str]:
        """The step as it ended, and its brief. Raises `ToolError` where the tool cannot do its work."""
        if step.id in self._done:
            return self._done[step.id], self.brief(self._done[step.id])
        tool = get_tool(step.tool)
        missing = [id for id in step.inputs.values() if id not in self.artifacts]
        if missing:
            raise NothingToWorkOn(f"{step.tool}: the step that makes {missing[0]} left nothing")
        key = self.key(step, tool)
        before = self._finished.get(key)
        if before is not None and self._at_hand(before["outputs"]):
            seconds, outputs = before["seconds"], self._own(step, tool, key, before)
        else:
            seconds, outputs = self._run_tool(step, tool, key)
        for name, one in outputs.items():
            self._register(step, tool, name, one)
        done = step.model_copy(
            update={
                "status": "done",
                "seconds": seconds,
                "outputs": tuple(f"{step.id}.{name}" for name in outputs),
            }
        )
        self._done[step.id] = done
        return done, self.brief(done)

    def _at_hand(self, outputs: Mapping[str, dict[str, Any]]) -> bool:
        """Whether all outputs are there and whole; those of another run are copied first.

        A table's copy for people that is missing is written.
        """
        for one in outputs.values():
            source, place = one.get("from"), self.store.folder / one["path"]
            if source is not None and not place.exists():
                write_whole(place, partial(shutil.copyfile, Path(source) / one["path"]))
        if not all(self.store.intact(one["path"], one["sha256"]) for one in outputs.values()):
            return False
        for one in outputs.values():
            if one["kind"] == "table" and not (self.store.folder / tsv_of(one["path"])).exists():
                self.store.write_tsv(one["path"])
        return True

    def _own(self, step: Step, tool: Tool, key: str, event: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The outputs of a step that was finished before; of another run's the event becomes this run's."""
        outputs = {
            name: {field: value for field, value in one.items() if field != "from"}
            for name, one in event["outputs"].items()
        }
        if outputs != event["outputs"]:
            self._finished[key] = self.store.append(
                "step_finished", step=step.id, tool=tool.name, key=key, seconds=event["seconds"],
                outputs=outputs, adopted=True,
            )  # fmt: skip
        return outputs

    def _run_tool(self, step: Step, tool: Tool, key: str) -> tuple[float, dict[str, dict[str, Any]]]:
        self.meter.take_step()
        self.store.append(
            "step_started", step=step.id, tool=tool.name, params=step.params, inputs=step.inputs
        )
        began = time.monotonic()
        params = tool.parse(step.params)
        found = tool({name: self.load(id) for name, id in step.inputs.items()}, params, self.context)
        seconds = round(time.monotonic() - began, 3)
        outputs = {
            name: self._save(step, tool, name, artifact)
            for name, artifact in found.items()
            if artifact is not None
        }
        self.store.append(
            "step_finished", step=step.id, tool=tool.name, key=key, seconds=seconds, outputs=outputs
        )
        return seconds, outputs

    def _save(self, step: Step, tool: Tool, name: str, artifact: Artifact) -> dict[str, Any]:
        kind = tool.outputs[name].kind
        path, sha256 = self.store.save(kind, f"{step.id}__{name}", artifact)
        if kind == "table":
            self.store.write_tsv(path)
        return {"kind": kind, "path": path, "sha256": sha256}

    def _register(self, step: Step, tool: Tool, name: str, one: Mapping[str, Any]) -> None:
        id = f"{step.id}.{name}"
        kind: ArtifactKind = one["kind"]
        if kind != "table":
            self.artifacts[id] = Kept(ArtifactInfo(id, kind, name, tool.name), one["path"], one["sha256"])
            return
        declared = tool.outputs[name]
        table_id = self._free(name)
        data: pd.DataFrame = self.store.load("table", one["path"], one["sha256"])
        self._loaded[id] = data
        info = ArtifactInfo(id, kind, name, tool.name, tuple(map(str, data.columns)), len(data))
        self.artifacts[id] = Kept(info, one["path"], one["sha256"], table_id)
        self.results.append(
            Result(
                table_id=table_id,
                kind=tool.name,
                key_columns=declared.key_columns,
                columns={column: role for column, role in declared.columns.items() if column in data},
                n_rows=len(data),
                path=one["path"],
                sha256=one["sha256"],
                produced_by=step.id,
            )
        )

    def _free(self, name: str) -> str:
        taken = {result.table_id for result in self.results}
        number = 2
        found = name
        while found in taken:
            found, number = f"{name}_{number}", number + 1
        return found

    def brief(self, step: Step) -> str:
        """The tool's summary of a finished step, at most 40 lines; of a figure its name, as it is on disk."""
        tool = get_tool(step.tool)
        if all(self.artifacts[id].info.kind == "figure" for id in step.outputs):
            return f"drawn: {', '.join(self.artifacts[id].info.name for id in step.outputs)}"
        outputs = {id.rpartition(".")[2]: self.load(id) for id in step.outputs}
        return "\n".join(tool.summary(outputs).splitlines()[:40])
