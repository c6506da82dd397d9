"""One data set in the hands of an assistant: tools called one by one, their results kept in memory by name.

What an assistant may do is what a planner may: call typed tools on artifacts, see aggregate rows, have a
statement checked. No argument is a path, and no table of single samples is shown (sections 2.11, 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from proteus_omics.design import Design
from proteus_omics.errors import ToolError
from proteus_omics.hypotheses.references import Table, Tables
from proteus_omics.planner.base import ArtifactInfo
from proteus_omics.planner.context import artifacts_text, profile_text, tables_text, top_rows
from proteus_omics.profiling import profile_dataset
from proteus_omics.tools.registry import Tool, ToolContext, all_tools

if TYPE_CHECKING:
    from anndata import AnnData

    from proteus_omics.knowledge import Knowledge

MOST_ROWS = 200


@dataclass(frozen=True)
class Action:
    """What an assistant can call: its name, what it does, and the JSON schema of its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a call says, and the figures that it made as PNG."""

    text: str
    figures: tuple[bytes, ...] = ()


def _object(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required or [],
        "additionalProperties": False,
    }


OWN = (
    Action("describe_data", "What is known of the data and the design.", _object({})),
    Action("list_artifacts", "Artifacts and tables that there are, by name.", _object({})),
    Action(
        "show_table",
        "Rows of a result table, the smallest p first; `contains` keeps rows with that text.",
        _object(
            {
                "table": {"type": "string"},
                "rows": {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": 20},
                "contains": {"type": "string", "default": ""},
            },
            ["table"],
        ),
    ),
    Action(
        "check_statement",
        "Whether each number, name and direction in a text agrees with the result tables.",
        _object({"text": {"type": "string"}}, ["text"]),
    ),
)


class Session:
    """The tools on one data set. Raises the errors of `po.audit` for a design that cannot be tested."""

    def __init__(
        self,
        adata: AnnData,
        design: Design,
        *,
        knowledge: Knowledge | None = None,
        alpha: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.profile = profile_dataset(adata, design, knowledge=knowledge)
        self._context = ToolContext(design=design, alpha=alpha, seed=seed, knowledge=knowledge)
        self._tools = all_tools()
        self._artifacts: dict[str, Any] = {"input": adata}
        self._infos = {"input": ArtifactInfo("input", "matrix", "matrix", "input")}
        self._tables: dict[str, Table] = {}

    @property
    def tables(self) -> Tables:
        """The aggregate tables so far, by their ids."""
        return Tables(self._tables).aggregate()

    def actions(self) -> list[Action]:
        """Everything that can be called: the registered tools, and four of the session's own."""
        return [*OWN, *(_action(tool) for tool in self._tools.values())]

    def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Do what the action says. Raises `ToolError` and what the tools raise, for people to read."""
        if name in self._tools:
            return self._run(self._tools[name], arguments)
        own = {one.name: one.schema for one in OWN}
        if name not in own:
            raise ToolError(f"there is no {name!r} to call; there are {', '.join([*own, *self._tools])}")
        _fitting(name, own[name], arguments)
        if name == "describe_data":
            return Answer(profile_text(self.profile, self._context.alpha))
        if name == "list_artifacts":
            return Answer(
                f"{artifacts_text(self._infos)}\n\n{tables_text(self.tables, self._context.alpha)[-1]}"
            )
        if name == "show_table":
            return self._show(**arguments)
        return self._check(**arguments)

    def _run(self, tool: Tool, arguments: Mapping[str, Any]) -> Answer:
        given = {"data": "input"} if "data" in tool.inputs else {}
        given |= {key: value for key, value in arguments.items() if key in tool.inputs}
        params = tool.parse({key: value for key, value in arguments.items() if key not in tool.inputs})
        inputs = {key: self._input(tool, key, artifact) for key, artifact in given.items()}
        outputs = {
            key: value for key, value in tool(inputs, params, self._context).items() if value is not None
        }
        left = [self._keep(tool, key, value) for key, value in outputs.items()]
        said = "\n".join(tool.summary(outputs).splitlines()[:40])
        figures = tuple(_png(value) for key, value in outputs.items() if tool.outputs[key].kind == "figure")
        return Answer(f"{said}\n\nleft: {', '.join(left)}", figures)

    def _input(self, tool: Tool, key: str, artifact: str) -> Any:
        wanted = tool.inputs[key]
        if artifact not in self._infos or self._infos[artifact].kind != wanted:
            there = [other for other, info in self._infos.items() if info.kind == wanted]
            raise ToolError(
                f"{tool.name}: {key} = {artifact!r} is no {wanted}; there are {', '.join(there) or 'none'}"
            )
        return self._artifacts[artifact]

    def _keep(self, tool: Tool, output: str, value: Any) -> str:
        """Keep an output under a name that is free; a table's is also the id of its references."""
        declared = tool.outputs[output]
        wanted = output if declared.kind == "table" else f"{tool.name}.{output}"
        number, name = 2, wanted
        while name in self._artifacts:
            number, name = number + 1, f"{wanted}_{number}"
        columns = tuple(map(str, value.columns)) if declared.kind == "table" else ()
        self._artifacts[name] = value
        self._infos[name] = ArtifactInfo(
            name, declared.kind, output, tool.name, columns, len(value) if columns else 0
        )
        if declared.kind == "table":
            roles = {column: role for column, role in declared.columns.items() if column in columns}
            self._tables[name] = Table(name, value.reset_index(drop=True), declared.key_columns, roles)
        return name

    def _show(self, table: str, rows: int = 20, contains: str = "") -> Answer:
        if table not in self.tables:
            raise ToolError(
                f"there is no table {table!r} to show; there are {', '.join(self.tables) or 'none'}"
            )
        found = top_rows(self.tables[table], contains)
        shown = found[: min(int(rows), MOST_ROWS)]
        return Answer("\n".join([f"{len(shown)} of {len(found)} rows", *shown]))

    def _check(self, text: str) -> Answer:
        from proteus_omics.hypotheses import guard

        report = guard.check(text, self.tables, alpha=self._context.alpha)
        found = [f"{one.verdict}: {one.claim!r}: {one.message}" for one in report.findings]
        return Answer("\n".join([f"status: {report.status}", *found]))


def _action(tool: Tool) -> Action:
    """A tool's inputs and parameters as one flat object."""
    schema = tool.params.model_json_schema()
    inputs = {
        key: {"type": "string", "description": f"name of a {kind}"}
        | ({"default": "input"} if key == "data" else {})
        for key, kind in tool.inputs.items()
    }
    required = [key for key in inputs if key != "data" and key not in tool.optional_inputs]
    described = f"{tool.description} Leaves {', '.join(tool.outputs)}. {tool.citation}"
    merged = _object(inputs | schema.get("properties", {}), [*required, *schema.get("required", [])])
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return Action(tool.name, described, merged | definitions)


def _fitting(name: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    missing = [key for key in schema["required"] if key not in arguments]
    unknown = [key for key in arguments if key not in schema["properties"]]
    if missing or unknown:
        raise ToolError(
            f"{name} takes {', '.join(schema['properties']) or 'no arguments'}; got {list(arguments)}"
        )


def _png(figure: Any) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
