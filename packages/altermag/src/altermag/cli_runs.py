"""The verbs that run something long: screen, dft."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from altermag import terminal
from altermag.cli_models import slab
from altermag.cli_options import AsJson, Moments, Settings, Structure, assignments, moments_of
from altermag.errors import AltermagError

dft = typer.Typer(
    help="Density functional theory: run with GPAW, or write inputs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Preset = Annotated[Optional[str], typer.Option(help="A preset of the engine; by default its first.")]  # noqa: UP045


def screen(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of structures, or one file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table, parquet.")],
    ops: Annotated[str, typer.Option(help="Operators, separated by commas.")] = "mirror,inversion,c2z",
    symprecs: Annotated[str, typer.Option(help="Tolerances in Å, separated by commas.")] = "1e-3,1e-2,1e-1",
    top: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write the best candidates as a page in Markdown."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with an earlier run, or start it anew.")] = True,
    magmoms: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--magmoms", help="In μB by element, Pt=1,Br=0, for files that hold none."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Exfoliate structures and find their altermagnetic stackings; one that fails is a row with its error."""
    from altermag.screening import screen as screened
    from altermag.screening import top as best

    moments = moments_of(magmoms)
    if isinstance(moments, list):
        raise AltermagError(f"--magmoms {magmoms}: for many structures give moments by element, Pt=1,Br=0")
    try:
        tolerances = [float(value) for value in symprecs.split(",")]
    except ValueError as error:
        raise AltermagError(f"--symprecs {symprecs}: write numbers, 1e-3,1e-2") from error
    try:
        with terminal.progress("screening") as on_progress:
            table = screened(
                source,
                out,
                ops=ops.split(","),
                symprecs=tolerances,
                resume=resume,
                magmoms=moments,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        terminal.tell(f"altermag: interrupted; {out} has what was done, and the same command goes on")
        raise typer.Exit(130) from None
    page = best(table)
    if top is not None:
        top.write_text(page, encoding="utf-8")
    failed = int(table["error"].notna().sum())
    terminal.tell(f"altermag: {table['source'].nunique()} structures, {failed} rows with an error; see {out}")
    terminal.show(table.to_dict(orient="records"), as_json, lambda: page)


@dft.command()
def run(
    structure: Structure,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of this calculation.")],
    preset: Preset = None,
    settings: Settings = None,
    magmoms: Moments = None,
    as_json: AsJson = False,
) -> None:
    """Compute a bilayer or a monolayer with GPAW; the same command goes on where it stopped."""
    from altermag.dft import gpaw
    from altermag.dft.results import check_splitting, in_plane_rotations

    layer = slab(structure, magmoms)
    found = gpaw.run(layer, preset or next(iter(gpaw.PRESETS)), out, **_settings(settings))
    check = check_splitting(found, in_plane_rotations(layer)[1])

    def largest(splitting: float, points: Any) -> str:
        return f"{splitting:.2f}" if points.any() else "no such points"

    terminal.show(
        found.as_dict(),
        as_json,
        lambda: terminal.table(
            ("", ""),
            [
                ("energy (eV a cell)", f"{found.energy:.5f}"),
                ("gap (eV)", f"{found.gap:.3f}"),
                ("total moment (μB)", f"{found.total_moment:.4f}"),
                ("polarisation along z (pC/m)", f"{found.polarisation:.4f}"),
                ("splitting where symmetry forbids it (meV)", largest(check.forced_zeros, check.zeros)),
                ("splitting elsewhere (meV)", largest(check.generic, ~check.zeros)),
            ],
        ),
    )


@dft.command()
def inputs(
    structure: Structure,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the inputs.")],
    engine: Annotated[str, typer.Option(help="gpaw, vasp, espresso, or another that is installed.")] = "vasp",
    preset: Preset = None,
    magmoms: Moments = None,
    as_json: AsJson = False,
) -> None:
    """Write what a code needs to compute a bilayer or a monolayer elsewhere."""
    from altermag.dft.engines import engine as find_engine

    module = find_engine(engine)
    files = module.write_inputs(slab(structure, magmoms), out, preset or next(iter(module.PRESETS)))
    terminal.show(
        [str(file) for file in files],
        as_json,
        lambda: terminal.table(("",), [(str(file),) for file in files]),
    )


def _settings(settings: list[str] | None) -> dict[str, Any]:
    found = assignments(settings)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
