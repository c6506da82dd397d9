"""Screen structures: which of them, stacked how, are altermagnets? (Section 6.5; extra `screen`.)

    table = screen("structures/", "table.parquet")

Every structure is exfoliated, and every monolayer is stacked on its copy in all special ways. Rows are
appended to table.parquet.rows.jsonl as they come; the table is written whole at the end and when it is
interrupted, and the same call goes on. A structure that fails is a row with its error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from altermag.errors import AltermagError, MissingExtraError
from altermag.exfoliation import exfoliate
from altermag.io import crystal_dict, read
from altermag.monolayer import Monolayer
from altermag.stacking import named_operator

if TYPE_CHECKING:
    from pandas import DataFrame

SUFFIXES = (".mcif", ".cif", ".json", ".vasp", ".poscar", ".xyz", ".extxyz", ".traj")
SYMPRECS = (1e-3, 1e-2, 1e-1)
COLUMNS = (
    "source",
    "layer",
    "formula",
    "n_atoms",
    "monolayer_group",
    "monolayer_symbol",
    "monolayer_moments",
    "op",
    "symprec",
    "n_stackings",
    "altermagnetic_shifts",
    "waves",
    "layer_groups",
    "generic_kind",
    "polar_shifts",
    "partners",
    "structure",
    "error",
)
WAVES = {"d": 0, "g": 1, "i": 2}

Progress = Callable[[int, int], None]

_ANEW = "give the same, another table, or --no-resume (resume=False) to start anew"


def screen(
    sources: str | PathLike[str] | Iterable[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    ops: Sequence[str] = ("mirror", "inversion", "c2z"),
    symprecs: Sequence[float] = SYMPRECS,
    resume: bool = True,
    magmoms: dict[str, float] | None = None,
    on_progress: Progress | None = None,
) -> DataFrame:
    """Screen files, or all structures in a folder, and return the table that is written to `out` (parquet).

    One row a monolayer, operator and tolerance: the special stackings change with `symprecs` (Å) where a
    measured structure is slightly distorted. With `resume` structures that were done are not done again
    unless their file has changed since; without it an earlier screening in `out` is begun anew. `magmoms` by
    element replaces the files' moments. Shifts are fractions of the monolayer's cell, which is in the column
    structure (the content of a .json that `altermag.io.read` takes).

    Raises `AltermagError` if there is no structure, if `out` is no .parquet, is there and no screening's or,
    with `resume`, one of other settings or structures, or for an unknown operator or tolerance;
    `ImportError` without pandas and pyarrow.
    """
    _pandas()
    target = Path(out)
    if target.suffix != ".parquet":
        raise AltermagError(f"{target}: the table is parquet; name it {target.with_suffix('.parquet').name}")
    for op in ops:
        named_operator(op)
    if not symprecs or not all(0 < symprec < np.inf for symprec in symprecs):
        raise AltermagError(f"symprecs={list(symprecs)}; needed: positive tolerances in Å")
    rows_file = target.with_name(f"{target.name}.rows.jsonl")
    files = _files(sources)
    begun = _begun_with(rows_file)
    if begun is None and target.exists():
        raise AltermagError(
            f"{target} exists, and {rows_file.name}, which would say what made it, does not; "
            "give another table"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    settings = {"ops": list(ops), "symprecs": list(symprecs), "magmoms": magmoms}
    if begun is None or not resume:
        _replace(rows_file, (json.dumps(settings) + "\n").encode())
    elif begun != settings:
        raise AltermagError(f"{rows_file} was begun with {begun}, not {settings}; {_ANEW}")
    sums = {str(file): _sum(file) for file in files}
    _, *rows = _read_rows(rows_file, sums)
    done = {row["source"] for row in rows}
    if others := sorted(done - {str(file) for file in files}):
        raise AltermagError(f"{target} has {others[0]}, which is not among the structures; {_ANEW}")
    try:
        for number, file in enumerate(files):
            if on_progress is not None:
                on_progress(number, len(files))
            if str(file) not in done:
                mark = {"finished": str(file), "sha256": sums[str(file)]}
                _append(rows_file, [*_rows_of(file, ops, symprecs, magmoms), mark])
    finally:
        table = _write_table(rows_file, target, sums)
    return table


def top(table: DataFrame, count: int = 20) -> str:
    """Return the best candidates as a page in Markdown: d before g before i, then few atoms first.

    A candidate has an altermagnetic stacking at a special position; one that also has polar stackings can be
    switched by sliding.
    """
    found = table[table["n_stackings"].notna() & table["waves"].str.len().gt(0)]
    if not len(found):
        return "# Altermagnetic stackings\n\nNone was found.\n"
    ranked = found.assign(
        rank=found["waves"].map(lambda waves: min(WAVES.get(wave, 9) for wave in waves.split(", ")))
    ).sort_values(["rank", "n_atoms", "symprec", "source"], kind="stable")
    best = ranked.drop_duplicates(["source", "layer", "op"]).head(count)
    layers = len(found.drop_duplicates(["source", "layer"]))
    lines = [
        "# Altermagnetic stackings",
        "",
        f"Monolayers that have one: {layers}. The first {len(best)} rows:",
        "",
        "| source | layer | group | stacked by | at shifts | wave | bilayer | polar, too, at |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in best.itertuples():
        cells = (
            Path(row.source).name,
            row.formula,
            row.monolayer_symbol,
            row.op,
            row.altermagnetic_shifts,
            row.waves,
            row.layer_groups,
            row.polar_shifts or "none",
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _rows_of(
    file: Path, ops: Sequence[str], symprecs: Sequence[float], magmoms: dict[str, float] | None
) -> list[dict[str, Any]]:
    """The rows of one structure; whatever is wrong with it becomes the error of its row."""
    empty = {**dict.fromkeys(COLUMNS), "source": str(file)}
    rows = []
    for symprec in symprecs:
        try:
            crystal = read(file)
            if magmoms:
                moments = np.array([float(magmoms.get(name, 0.0)) for name in crystal.species])
                crystal = crystal._replace(magmoms=moments)
            layers = exfoliate(crystal, symprec=symprec)
        except Exception as error:  # parsers raise whatever they stumble over; the run goes on
            rows.append(empty | {"symprec": symprec, "error": _shown(error)})
            continue
        for number, layer in enumerate(layers):
            for op in ops:
                about = empty | {"layer": number, "op": op, "symprec": symprec, **_about(layer)}
                try:
                    rows.append(about | _stackings(layer, op))
                except Exception as error:
                    rows.append(about | {"error": _shown(error)})
    return rows


def _about(layer: Monolayer) -> dict[str, Any]:
    from ase.formula import Formula

    cell = crystal_dict(layer.lattice, layer.frac_coords, layer.species, layer.magmoms)
    return {
        "structure": json.dumps(cell),
        "formula": Formula.from_list(sorted(layer.species)).format("metal"),
        "n_atoms": len(layer.species),
        "monolayer_group": layer.layer_group.number,
        "monolayer_symbol": layer.layer_group.symbol,
        "monolayer_moments": "parallel"
        if (layer.magmoms >= 0).all() or (layer.magmoms <= 0).all()
        else "mixed",
    }


def _stackings(layer: Monolayer, op: str) -> dict[str, Any]:
    """What the special stackings of a monolayer under one operator are."""
    from altermag.classification import classify
    from altermag.special import enumerate_stackings

    found = [(bilayer, classify(bilayer)) for bilayer in enumerate_stackings(layer, ops=(op,))]
    magnets = [(bilayer, kind) for bilayer, kind in found if kind.kind == "altermagnet"]
    polar = [bilayer for bilayer, kind in found if kind.kind == "compensated-ferrimagnet" and kind.polar_z]
    partners = [
        {"shift": shown_shift(bilayer.shift), "partner": shown_shift(partner.shift), "label": partner.label}
        for bilayer, _ in magnets
        for partner in bilayer.partners()
        if partner.label == "chirality"
    ]
    return {
        "n_stackings": len(found),
        "altermagnetic_shifts": " ".join(shown_shift(bilayer.shift) for bilayer, _ in magnets),
        "waves": ", ".join(dict.fromkeys(kind.wave or "" for _, kind in magnets)),
        "layer_groups": ", ".join(
            dict.fromkeys(kind.layer_group.symbol for _, kind in magnets if kind.layer_group)
        ),
        "generic_kind": found[-1][1].kind if found else None,
        "polar_shifts": " ".join(shown_shift(bilayer.shift) for bilayer in polar),
        "partners": json.dumps(partners),
    }


def shown_shift(shift: Sequence[float]) -> str:
    """Return a shift for people: (1/3,2/3), or decimals where the fractions are not simple."""

    def shown(value: float) -> str:
        simple = Fraction(float(value)).limit_denominator(24)
        return str(simple) if abs(float(simple) - float(value)) < 1e-6 else f"{float(value):.4g}"

    return f"({shown(shift[0])},{shown(shift[1])})"


def _files(sources: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Path]:
    if isinstance(sources, (str, PathLike)):
        root = Path(sources)
        if root.is_dir():
            found = sorted(path for path in root.rglob("*") if path.is_file() and _is_structure(path))
            if not found:
                raise AltermagError(f"{root} has no structures; known are POSCAR and {', '.join(SUFFIXES)}")
            return found
        sources = [root]
    files = [Path(source) for source in sources]
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise AltermagError(f"no such structure: {', '.join(missing) or 'none was given'}")
    return files


def _is_structure(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or path.name.startswith(("POSCAR", "CONTCAR"))


def _append(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in rows))


def _begun_with(file: Path) -> dict[str, Any] | None:
    """The settings of the screening that the file is of; None if there is none, or not a whole line yet."""
    if not file.exists():
        return None
    with file.open(encoding="utf-8") as stream:
        line = stream.readline()
    if not line.endswith("\n"):
        return None
    try:
        settings: dict[str, Any] = json.loads(line)
        if "ops" in settings:
            return settings
    except (ValueError, TypeError):
        pass
    raise AltermagError(f"{file} is there and not of a screening; give another table")


def _sum(file: Path) -> str:
    """The SHA-256 of a file; nothing of one that cannot be read, which becomes the error of its row."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _read_rows(file: Path, sums: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The rows of structures that were finished; of one cut off, or of another sum than here, nothing."""
    if not file.exists():
        return
    pending: list[dict[str, Any]] = []
    whole: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if "ops" in row:
            whole.append(line)
            yield row
        elif "finished" in row:
            mark = row.get("sha256")
            if sums.get(row["finished"], mark) == mark:
                whole += [json.dumps(entry) for entry in [*pending, row]]
                yield from pending
            pending = []
        else:
            pending.append(row)
    _replace(file, "".join(f"{line}\n" for line in whole).encode())


def _write_table(rows_file: Path, target: Path, sums: Mapping[str, str]) -> DataFrame:
    """Write the rows in the order of `sums`, whenever they were made."""
    pandas = _pandas()
    place = {source: number for number, source in enumerate(sums)}
    rows = [row for row in _read_rows(rows_file, sums) if "ops" not in row]
    rows.sort(key=lambda row: place[row["source"]])
    table = pandas.DataFrame(rows, columns=list(COLUMNS))
    for column in ("layer", "n_atoms", "monolayer_group", "n_stackings"):
        table[column] = table[column].astype("Int64")
    for column in set(COLUMNS) - {"layer", "n_atoms", "monolayer_group", "n_stackings", "symprec"}:
        table[column] = table[column].astype("string")
    partial = target.with_name(f".{target.name}.partial")
    table.to_parquet(partial, index=False)
    partial.replace(target)
    return table


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _shown(error: Exception) -> str:
    if isinstance(error, AltermagError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _pandas() -> Any:
    try:
        import pandas
        import pyarrow  # noqa: F401  # what pandas writes parquet with
    except ImportError as error:
        raise MissingExtraError(
            f"{error.name or 'pandas'} is needed for tables in parquet: pip install 'altermag[screen]'"
        ) from error
    return pandas
