"""The `altermag` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from altermag import cli_models, cli_runs, terminal
from altermag.cli_options import AsJson, Moments, Structure, moments_of
from altermag.errors import AltermagError, AltermagWarning

app = typer.Typer(
    name="altermag",
    help="Two-dimensional altermagnets: stack a magnetic monolayer on its copy and know the magnetic class.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(cli_models.kpath)
app.command()(cli_models.bands)
app.command()(cli_models.kerr)
app.command()(cli_runs.screen)
app.add_typer(cli_runs.dft, name="dft")

Operator = Annotated[
    str, typer.Option("--op", help="mirror, identity, inversion, c2z, c2:<angle>, c4z or s4z.")
]


@app.command()
def classify(
    structure: Structure,
    magmoms: Moments = None,
    dim: Annotated[int, typer.Option(help="2 for a layer, 3 for a crystal.", min=2, max=3)] = 2,
    symprec: Annotated[float, typer.Option(help="Tolerance of positions in Å.")] = 1e-3,
    scan: Annotated[
        bool, typer.Option("--symprec-scan", help="The class at tolerances from 1e-4 to 0.1 Å.")
    ] = False,
    vacuum_axis: Annotated[
        Optional[int],  # noqa: UP045  # typer reads it at run time
        typer.Option(help="0, 1 or 2: where the vacuum is, if it cannot be seen.", min=0, max=2),
    ] = None,
    from_mcif: Annotated[
        bool, typer.Option("--from-mcif", help="Insist on the file's own moments (magCIF).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell the magnetic class of a layer or a crystal, and why."""
    from altermag.classification import classify as classified
    from altermag.classification import symprec_scan

    if from_mcif and (magmoms or structure.suffix != ".mcif"):
        raise AltermagError("--from-mcif takes the moments of a .mcif file: leave --magmoms out")
    options: dict[str, Any] = {"dim": dim, "vacuum_axis": vacuum_axis}
    moments = moments_of(magmoms)
    if scan:
        found = symprec_scan(structure, magmoms=moments, **options)
        terminal.show(
            [{"symprec": tolerance, **kind.to_dict()} for tolerance, kind in found],
            as_json,
            lambda: terminal.table(
                ("symprec (Å)", "class", "group", "wave"),
                [(f"{tolerance:g}", kind.kind, _group(kind), kind.wave or "") for tolerance, kind in found],
            ),
        )
        return
    found_kind = classified(structure, moments, symprec=symprec, **options)
    terminal.show(found_kind.to_dict(), as_json, lambda: terminal.table(("", ""), _told(found_kind)))


@app.command()
def stack(
    structure: Structure,
    shift: Annotated[str, typer.Option(help="Fractions of a1 and a2, read exactly: 1/3,2/3.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="POSCAR, .cif, .xyz; .json keeps the moments.")],
    op: Operator = "mirror",
    distance: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--distance", "-d", help="Å between the mid-planes of the layers."),
    ] = None,
    gap: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Å between the outermost atoms of the layers, instead of --distance."),
    ] = None,
    order: Annotated[str, typer.Option(help="afm (antiparallel layers) or fm.")] = "afm",
    vacuum: Annotated[float, typer.Option(help="Å of empty space.")] = 20.0,
    magmoms: Moments = None,
    as_json: AsJson = False,
) -> None:
    """Stack a monolayer on its copy and write the bilayer."""
    from altermag.classification import classify as classified
    from altermag.stacking import stack as stacked

    monolayer = _monolayer(structure, magmoms)
    bilayer = stacked(monolayer, op, shift.split(","), distance=distance, gap=gap, order=order, vacuum=vacuum)
    cli_models.write_structure(bilayer, out)
    kind = classified(bilayer)
    if out.suffix != ".json":
        moments = " ".join(f"{moment:g}" for moment in bilayer.magmoms)
        terminal.tell(f"altermag: {out} holds no moments; in its order they are {moments}")
    terminal.show(
        {**bilayer.to_dict(), "file": str(out), "kind": kind.kind, "wave": kind.wave},
        as_json,
        lambda: terminal.table(("", ""), [("written", str(out)), *_told(kind)]),
    )


@app.command(name="map")
def map_(
    structure: Structure,
    op: Operator = "mirror",
    n: Annotated[int, typer.Option("-n", help="Shifts along a1 and a2.", min=1)] = 48,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Draw the map into this file (.png, .svg, .pdf)."),
    ] = None,
    magmoms: Moments = None,
    as_json: AsJson = False,
) -> None:
    """Classify every shift of the upper layer on a grid."""
    from altermag.mapping import stacking_map

    found = stacking_map(_monolayer(structure, magmoms), op=op, shifts=n)
    if plot is not None:
        found.plot(str(plot))
    counts = found.counts()
    terminal.show(
        {
            "op": op,
            "n": n,
            "counts": counts,
            "shifts": found.shifts.tolist(),
            "kind": [str(kind) for kind in found.kind],
        },
        as_json,
        lambda: terminal.table(("class", "shifts"), [(kind, f"{count:,}") for kind, count in counts.items()]),
    )


@app.command(name="enumerate")
def enumerate_(
    structure: Structure,
    ops: Annotated[str, typer.Option(help="Operators, separated by commas.")] = "mirror",
    magmoms: Moments = None,
    as_json: AsJson = False,
) -> None:
    """List the special stackings, unique up to symmetry, with what each is, shifts in the primitive cell."""
    import numpy as np

    from altermag.classification import classify as classified
    from altermag.screening import shown_shift
    from altermag.special import enumerate_stackings

    monolayer = _monolayer(structure, magmoms)
    found = [
        (bilayer, classified(bilayer))
        for bilayer in enumerate_stackings(monolayer, ops=tuple(ops.split(",")))
    ]
    if monolayer.primitive is not monolayer:
        vectors = " and ".join(map(shown_shift, np.linalg.inv(monolayer.to_primitive)))
        terminal.tell(
            f"altermag: {structure} is no primitive cell; the shifts are fractions of its primitive one, "
            f"whose vectors are {vectors} in fractions of the file's"
        )
    terminal.show(
        [
            {
                "op": bilayer.op,
                "shift": list(bilayer.shift),
                "kind": kind.kind,
                "reason": kind.reason,
                "wave": kind.wave,
                "n_nodal_lines": kind.n_nodal_lines,
                "layer_group": kind.layer_group and kind.layer_group._asdict(),
                "chiral": kind.chiral,
                "polar_z": kind.polar_z,
            }
            for bilayer, kind in found
        ],
        as_json,
        lambda: terminal.table(
            ("op", "shift", "class", "group", "wave", "nodal lines", "chiral", "polar"),
            [
                (
                    bilayer.op,
                    shown_shift(bilayer.shift),
                    kind.kind,
                    _group(kind),
                    kind.wave or "",
                    str(kind.n_nodal_lines),
                    "yes" if kind.chiral else "",
                    "yes" if kind.polar_z else "",
                )
                for bilayer, kind in found
            ],
        ),
    )


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run altermag`."""
    from altermag.reproduce import verb

    verb.reproduce("altermag", context)


def _monolayer(structure: Path, magmoms: str | None) -> Any:
    from altermag.monolayer import Monolayer

    return Monolayer.from_file(structure, moments_of(magmoms))


def _group(kind: Any) -> str:
    group = kind.layer_group or kind.space_group
    return f"{group.symbol} ({group.number})"


def _told(kind: Any) -> list[tuple[str, str]]:
    rows = [
        ("class", kind.kind),
        ("because", kind.reason),
        ("layer group" if kind.dim == 2 else "space group", _group(kind)),
        ("spin point group", kind.spin_point_group),
        ("operations", f"{len(kind.keep_ops)} keep the spins, {len(kind.flip_ops)} flip them"),
    ]
    if kind.wave:
        what = "nodal lines through Γ" if kind.dim == 2 else "nodal planes"
        rows += [("wave", kind.wave), (what, str(kind.n_nodal_lines))]
    if kind.dim == 2:
        rows += [
            ("chiral", "yes" if kind.chiral else "no"),
            ("polar along z", "yes" if kind.polar_z else "no"),
        ]
    return rows


# The extra that brings a package, where it is not `reproduce`.
EXTRAS = {
    "atomate2": "flows",
    "jobflow": "flows",
    "matplotlib": "plot",
    "pandas": "screen",
    "pyarrow": "screen",
    "pymatgen": "pymatgen",
    "torch": "gpu",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"altermag {version('altermag')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.filterwarnings("ignore")  # the parsers of others say much
    warnings.filterwarnings("default", category=AltermagWarning)
    warnings.showwarning = lambda message, *_, **__: terminal.tell(f"altermag: {message}")
    try:
        app(arguments)
    except AltermagError as error:
        _end(str(error), 2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "altermag":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _end(f"this needs {package}, which is not installed: pip install 'altermag[{extra}]'", 2)
        _end(str(error), 2)  # says itself what it needs
    except (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        _end(f"{error.filename}: {error.strerror}", 2)
    except OSError as error:  # a full disk, a folder that may not be written
        _end(str(error), 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    terminal.tell(f"altermag: {message}")
    sys.exit(code)
