"""What a language model is shown: profile, tool cards, briefs, top rows; never the matrix (section 2.10).

Names from the data are data: they are quoted, cut and put between marks that they cannot close.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from proteus_omics.models import DatasetProfile

if TYPE_CHECKING:
    from proteus_omics.hypotheses.references import Table, Tables
    from proteus_omics.planner.base import ArtifactInfo
    from proteus_omics.tools.registry import Tool

CHARACTERS_A_TOKEN = 3
"""A low estimate for English and JSON, so that a request is rather too short than too long."""
LONGEST_NAME = 60
DIGITS = 4
ROWS = (12, 6, 3, 1)
"""Rows shown of a table and contrast: the most that fit."""
CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")


@dataclass(frozen=True)
class Section:
    """A titled part of a request; `versions` from the longest to the shortest, an empty one leaves it out."""

    title: str
    versions: Sequence[str]


def tokens(text: str) -> int:
    """An estimate of how many tokens a text has, rather too high than too low."""
    return len(text) // CHARACTERS_A_TOKEN + 1


def fit(sections: Sequence[Section], limit: int) -> str:
    """The sections as one text of at most `limit` tokens, where their shortest versions allow it.

    The last sections are shortened first; so what matters most comes first.
    """
    at = [0] * len(sections)

    def text() -> str:
        shown = [(one.title, one.versions[i]) for one, i in zip(sections, at, strict=True)]
        return "\n\n".join(f"## {title}\n<data>\n{_unclosed(body)}\n</data>" for title, body in shown if body)

    for number in reversed(range(len(sections))):
        while tokens(text()) > limit and at[number] + 1 < len(sections[number].versions):
            at[number] += 1
    return text()


def name(value: Any) -> str:
    """A name from the data: quoted, on one line, at most 60 characters."""
    text = CONTROL.sub(" ", str(value))
    return json.dumps(
        text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 3] + "...", ensure_ascii=False
    )


def profile_text(profile: DatasetProfile, alpha: float) -> str:
    """The profile and the design: counts, columns and levels, without samples."""
    lines = [
        f"{profile.n_obs} samples or cells x {profile.n_vars} proteins; {profile.modality};"
        f" scale {profile.scale};"
        f" organism {profile.organism or 'unknown'}; ids {profile.id_kind}; alpha {alpha:g}",
        f"missing: {profile.missing.overall:.1%}; by group: "
        + (
            ", ".join(f"{name(key)} {value:.1%}" for key, value in profile.missing.per_group.items())
            or "none"
        ),
    ]
    for column in profile.obs_columns:
        levels = ", ".join(f"{name(level)} ({n})" for level, n in list(column.levels.items())[:12])
        lines.append(
            f"column {name(column.name)}: {column.kind}, {column.n_missing} missing {levels}".rstrip()
        )
    for role, columns in profile.candidates.items():
        lines.append(f"could be {role}: {', '.join(map(name, columns)) or 'none'}")
    given = [f"{role} = {_json(value)}" for role, value in profile.design.items() if value]
    sizes = ", ".join(f"{name(level)} {n}" for level, n in profile.levels.items())
    lines += [
        f"design: {', '.join(given) or 'none given'}",
        f"samples: {profile.n_samples}; by level of the condition: {sizes or 'no condition'}",
        f"events: {'no survival data' if profile.n_events is None else profile.n_events}",
        f"knowledge: {', '.join(map(name, profile.knowledge)) or 'none'}",
    ]
    return "\n".join([*lines, *(f"warning: {CONTROL.sub(' ', warning)}" for warning in profile.warnings)])


def tool_cards(tools: Mapping[str, Tool]) -> list[str]:
    """A line a tool, with its settings, and the same without."""
    heads = []
    for tool in tools.values():
        inputs = ", ".join(
            f"{key}: {kind}{' (optional)' if key in tool.optional_inputs else ''}"
            for key, kind in tool.inputs.items()
        )
        outputs = ", ".join(f"{key}: {output.kind}" for key, output in tool.outputs.items())
        heads.append((f"{tool.name}({inputs}) -> {outputs}. {tool.description}", _settings(tool)))
    return [
        "\n".join(f"{head} {settings}".rstrip() for head, settings in heads),
        "\n".join(h for h, _ in heads),
    ]


def _settings(tool: Tool) -> str:
    schema = tool.params.model_json_schema().get("properties", {})
    shown = [f"{key}: {_allowed(value)} = {_json(value.get('default'))}" for key, value in schema.items()]
    return f"Settings: {'; '.join(shown)}" if shown else ""


def _allowed(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_allowed(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(_json(value) for value in schema["enum"])
    if "const" in schema:
        return _json(schema["const"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    bounds = f" {low:g} to {high:g}" if low is not None and high is not None else ""
    return f"{schema.get('type', 'any')}{bounds}"


def artifacts_text(artifacts: Mapping[str, ArtifactInfo]) -> str:
    """The artifacts that a step may take, by the names that the model uses."""
    lines = []
    for key, info in artifacts.items():
        columns = f", {info.n_rows} rows, columns {', '.join(info.columns)}" if info.columns else ""
        lines.append(f"{key}: {info.kind} of {info.produced_by}{columns}")
    return "\n".join(lines)


def tables_text(tables: Tables, alpha: float) -> list[str]:
    """The tables' top rows with the names by which a text refers to their cells, the most rows first."""
    return ["\n\n".join(_table(table, rows, alpha) for table in tables.values()) or "none" for rows in ROWS]


def newest(briefs: Sequence[str]) -> list[str]:
    """The briefs in one text; versions without the oldest, the second oldest, and so on."""
    return ["\n\n".join(briefs[start:]) for start in range(len(briefs))] or [""]


def row_text(table: Table, at: int) -> str:
    """A row: its name and the cells that have a role, numbers with four digits."""
    cells = [f"{column}={_cell(table.data[column].iloc[at])}" for column in ("gene", *_shown(table))
             if column in table.data.columns and column not in table.keys]  # fmt: skip
    return f"{CONTROL.sub(' ', table.names[at])}  {' '.join(cells)}"


def top_rows(table: Table, contains: str = "") -> list[str]:
    """The rows whose name or gene has `contains` in it, by contrast the smallest p first."""
    by_role: dict[str, str] = {role: column for column, role in table.roles.items()}
    found = []
    for _, positions in _groups(table):
        found += [row_text(table, at) for at in _top(table.data.iloc[positions], positions, by_role)]
    return [row for row in found if contains.lower() in row.lower()]


def _shown(table: Table) -> list[str]:
    return [
        str(column) for column in table.data.columns if column in table.roles and column not in table.keys
    ]


def _table(table: Table, rows: int, alpha: float) -> str:
    by_role: dict[str, str] = {role: column for column, role in table.roles.items()}
    roles = ", ".join(f"{column} ({table.roles[column]})" for column in _shown(table))
    lines = [f"table {table.id}, {len(table.data)} rows, row = {'|'.join(table.keys)}; columns: {roles}"]
    for contrast, positions in _groups(table):
        part = table.data.iloc[positions]
        if "q" in by_role:
            lines.append(f"{contrast}: {_counts(part, by_role, alpha)}".lstrip(": "))
        lines += [f"  {row_text(table, at)}" for at in _top(part, positions, by_role)[:rows]]
    return "\n".join(lines)


def _groups(table: Table) -> Iterator[tuple[str, list[int]]]:
    if "contrast" not in table.data.columns or table.data.empty:
        yield "", list(range(len(table.data)))
        return
    contrasts = table.data["contrast"].astype(str).tolist()
    for contrast in dict.fromkeys(contrasts):
        yield contrast, [at for at, one in enumerate(contrasts) if one == contrast]


def _counts(part: pd.DataFrame, by_role: Mapping[str, str], alpha: float) -> str:
    hits = part[part[by_role["q"]] < alpha]
    said = f"{int(part[by_role['q']].notna().sum())} tested, {len(hits)} with q < {alpha:g}"
    if "estimate" not in by_role:
        return said
    up = int((hits[by_role["estimate"]] > 0).sum())
    return f"{said} ({up} up, {len(hits) - up} down)"


def _top(part: pd.DataFrame, positions: list[int], by_role: Mapping[str, str]) -> list[int]:
    """Positions of a part's rows, the smallest p first, else the largest estimate, else as they are."""
    if "p" in by_role:
        keys = part[by_role["p"]].astype(float).tolist()
    elif "estimate" in by_role:
        keys = (-part[by_role["estimate"]].astype(float).abs()).tolist()
    else:
        return positions
    return [
        at for _, at in sorted(zip(keys, positions, strict=True), key=lambda pair: (pair[0] != pair[0], pair))
    ]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return name(value) if isinstance(value, str) else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _unclosed(text: str) -> str:
    return text.replace("</data", "< /data").replace("<data", "< data")


def names_of(infos: Iterable[ArtifactInfo]) -> dict[str, ArtifactInfo]:
    """Artifacts by names that a model can write: `input`, `normalize.matrix`, `normalize_2.matrix`."""
    found: dict[str, ArtifactInfo] = {}
    for info in infos:
        if info.id == "input":
            found["input"] = info
            continue
        number, key = 2, f"{info.produced_by}.{info.name}"
        while key in found:
            number, key = number + 1, f"{info.produced_by}_{number}.{info.name}"
        found[key] = info
    return found
