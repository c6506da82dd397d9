"""The verbs about k paths and models: kpath, bands, kerr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from altermag import terminal
from altermag.cli_options import AsJson, Moments, Structure, moments_of
from altermag.errors import AltermagError

if TYPE_CHECKING:
    from altermag.monolayer import Monolayer

Kind = Annotated[
    str,
    typer.Option("--kind", help="generic: off the nodal lines; standard: along the lines of symmetry."),
]
Plot = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads it at run time
    typer.Option(help="Draw into this file (.png, .svg, .pdf)."),
]


def kpath(
    structure: Structure, kind: Kind = "generic", magmoms: Moments = None, as_json: AsJson = False
) -> None:
    """Give a path through the zone on which an altermagnet shows its splitting."""
    path = _path(slab(structure, magmoms), kind)
    ticks = [(label, float(position)) for label, position in path.ticks]
    terminal.show(
        {
            "kind": kind,
            "k_points": path.k_points.tolist(),
            "distances": path.distances.tolist(),
            "ticks": ticks,
            "special_points": {label: list(k) for label, k in path.special_points.items()},
        },
        as_json,
        lambda: terminal.table(("point", "k (fractions of b1, b2)", "along (1/Å)"), _stations(path)),
    )


def bands(
    structure: Structure,
    kind: Kind = "generic",
    orbitals: Annotated[str, typer.Option(help="s, p, sp or spd on every atom.")] = "s",
    exchange: Annotated[float, typer.Option(help="Exchange in eV per μB.")] = 1.0,
    field: Annotated[float, typer.Option(help="Gate field along z in V/Å.")] = 0.0,
    plot: Plot = None,
    magmoms: Moments = None,
    as_json: AsJson = False,
) -> None:
    """Bands of a model that has the structure's symmetry: where do the spins part? It is no prediction."""
    import numpy as np

    from altermag import tb

    layer = slab(structure, magmoms)
    path = _path(layer, kind)
    model = tb.from_bilayer(layer, orbitals=orbitals, exchange=exchange, field=field)
    energies = model.bands(path.k_points)
    splitting = np.abs(model.splitting(path.k_points)).max(1)
    where = path.k_points[int(splitting.argmax())]
    if plot is not None:
        from altermag.plot import plot_bands as draw

        draw(model, path, plot)
    terminal.show(
        {
            "model": orbitals,
            "k_points": path.k_points.tolist(),
            "distances": path.distances.tolist(),
            "bands_up": energies[0].tolist(),
            "bands_down": energies[1].tolist(),
            "largest_splitting": float(splitting.max()),
        },
        as_json,
        lambda: terminal.table(
            ("", ""),
            [
                ("largest splitting on the path (meV, model)", f"{1e3 * splitting.max():.4f}"),
                ("at k", f"({where[0]:.4f}, {where[1]:.4f})"),
                ("bands of each spin", str(energies.shape[-1])),
            ],
        ),
    )


def kerr(
    structure: Structure,
    electrons: Annotated[float, typer.Option(help="Electrons a cell in the model's states.")],
    soc: Annotated[float, typer.Option(help="Spin-orbit coupling in eV.")] = 0.4,
    neel: Annotated[str, typer.Option(help="Direction of the moments: 0,0,1.")] = "0,0,1",
    orbitals: Annotated[str, typer.Option(help="p, sp or spd.")] = "p",
    mesh: Annotated[int, typer.Option(help="k points along b1 and b2.", min=1)] = 12,
    eta: Annotated[float, typer.Option(help="Broadening in eV.")] = 0.1,
    emax: Annotated[float, typer.Option(help="Largest photon energy in eV.")] = 4.0,
    n: Annotated[int, typer.Option("-n", help="Photon energies.", min=1)] = 40,
    substrate: Annotated[float, typer.Option(help="Refractive index below the sheet.")] = 1.0,
    plot: Plot = None,
    magmoms: Moments = None,
    as_json: AsJson = False,
) -> None:
    """Kerr spectrum of a model with spin-orbit coupling, and what symmetry allows. It is no prediction."""
    import numpy as np

    from altermag import optics, tb
    from altermag.classification import classify

    direction = _direction(neel)
    if not emax > 0:
        raise AltermagError(f"--emax {emax}: the largest photon energy is a positive number of eV")
    layer = slab(structure, magmoms)
    allowed = sorted(classify(layer).hall_vector(direction))
    model = tb.from_bilayer(layer, orbitals=orbitals, soc=soc, neel=direction)
    energies = np.linspace(emax / n, emax, n)
    found = optics.kubo(model, energies, (mesh, mesh), eta, n_electrons=electrons)
    angle = np.asarray(optics.kerr((found.xx + found.yy) / 2, found.antisymmetric, substrate))
    if plot is not None:
        from altermag.plot import plot_kerr as draw

        draw(energies, {structure.stem: angle}, plot)
    strongest = int(np.abs(angle).argmax())
    terminal.show(
        {
            "energies": energies.tolist(),
            "rotation": angle.real.tolist(),
            "ellipticity": angle.imag.tolist(),
            "sigma_xy_antisymmetric": [found.antisymmetric.real.tolist(), found.antisymmetric.imag.tolist()],
            "allowed": allowed,
        },
        as_json,
        lambda: terminal.table(
            ("", ""),
            [
                ("Hall components that symmetry allows", ", ".join(allowed) or "none"),
                ("largest Kerr angle (mrad, model)", f"{1e3 * angle[strongest].real:.4g}"),
                ("its ellipticity (mrad, model)", f"{1e3 * angle[strongest].imag:.4g}"),
                ("at photon energy (eV)", f"{energies[strongest]:.3g}"),
            ],
        ),
    )


def slab(structure: Path, magmoms: str | None) -> Monolayer:
    """Return the file's layer or bilayer in the package's frame."""
    from altermag.monolayer import Monolayer

    return Monolayer.from_file(structure, moments_of(magmoms))


def write_structure(layered: Any, out: Path) -> None:
    """Write a bilayer, as .json with everything, else by ASE.

    Raises `AltermagError` if ASE cannot, or there is no such folder.
    """
    from altermag.dft.results import write_whole

    if not out.parent.is_dir():
        raise AltermagError(f"{out}: there is no folder {out.parent}")
    if out.suffix == ".json":
        write_whole(out, json.dumps(layered.to_dict(), indent=1))
        return
    from ase.io import write
    from ase.io.formats import UnknownFileTypeError

    try:
        write(out, layered.atoms, format="vasp" if out.name.startswith("POSCAR") else None)
    except UnknownFileTypeError as error:
        raise AltermagError(
            f"{out}: ASE does not know this kind of file; try POSCAR, .cif or .json"
        ) from error


def _path(layer: Monolayer, kind: str) -> Any:
    from altermag.kpath import generic_path, standard_path

    if kind not in ("generic", "standard"):
        raise AltermagError(f"--kind {kind}: it may be generic or standard")
    return generic_path(layer) if kind == "generic" else standard_path(layer)


def _stations(path: Any) -> list[tuple[str, str, str]]:
    """Return label, fractions and distance of every point of a path, both of them where it jumps."""
    return [
        (label, "({:.4f}, {:.4f})".format(*path.special_points[label]), f"{along:.4f}")
        for labels, along in path.ticks
        for label in labels.split("|")
    ]


def _direction(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError as error:
        raise AltermagError(f"--neel {text}: write three numbers, 0,0,1") from error
    return x, y, z
