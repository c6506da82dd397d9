"""The generic path beside AlterSeeK-Path's: is its k' an image that ours allows, and do the spins part there?

    uv venv peers && VIRTUAL_ENV=peers uv pip install packages/altermag alterseek-path
    peers/bin/python packages/altermag/benchmarks/paths.py

AlterSeeK-Path (MIT) is not in the workspace's lock: this runs in an environment of its own. Every bilayer is
written as POSCAR; the peer judges it as a layer and gives k, the middle of its irreducible wedge, and k', its
image under a spin-flip operation. Four facts are asked: do both say altermagnet; does one of our spin-flip
operations (or its inverse in k) carry k to k'; is our k* the same point up to a symmetry; does a model that
knows only the structure split oppositely at k and k'. Exit code 1 where one of the first two is not so. The
third may differ: a wedge is a choice.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from alterseek import general_k_path
from ase.io import write

from altermag import Bilayer, Classification, Monolayer, classify, prototypes, stack, tb
from altermag.kpath import generic_path

SAME = 1e-4  # fractions of b1 and b2: the peer reads a POSCAR and rounds


def bilayers() -> dict[str, Bilayer]:
    """Every class of the layer test; hexagonal, square, rectangular and oblique symmetry."""
    ptbr3 = prototypes.ptbr3()
    nickel = prototypes.dihalide("Ni", "Cl", a=3.48, height=1.36)
    found = {
        f"PtBr3 {name}": stack(ptbr3, "mirror", shift, distance=6.35)
        for name, shift in prototypes.TRIHALIDE_STACKINGS.items()
    }
    found["PtBr3 line"] = stack(ptbr3, "mirror", (0.1, 0.2), distance=6.35)
    found["NiCl2 (1/3,0)"] = stack(nickel, "mirror", (1 / 3, 0), distance=5.75)
    found["rectangular (0,0)"] = stack(centred(3.5, 4.76), "mirror", (0, 0), distance=8.0)
    for name, shift in (("(0,0)", (0, 0)), ("(5/6,1/6)", (5 / 6, 1 / 6)), ("(1/2,0)", (0.5, 0))):
        found[f"square, c4z {name}"] = stack(centred(4.0, 4.0), "c4z", shift, distance=8.0)
    for order in (3, 4, 6):
        found[f"{order}-fold chiral, c2:0"] = stack(chiral(order), "c2:0", (0, 0), distance=7.0)
    return found


def centred(a: float, b: float) -> Monolayer:
    """A layer of CrSBr's kind, layer group pmmn."""
    sites = {"Cr": (0.0, 0.0, 0.7), "S": (0.0, 0.5, 0.9), "Br": (0.0, 0.0, 2.9)}
    frac = [
        (x + u, y + u, 0.5 + sign * z / 25) for x, y, z in sites.values() for u, sign in ((0, 1), (0.5, -1))
    ]
    species = [name for name in sites for _ in range(2)]
    return Monolayer.from_arrays(np.diag([a, b, 25.0]), frac, species, {"Cr": 3.0})


def chiral(order: int) -> Monolayer:
    """A layer with an n-fold axis and nothing else: one metal on it, two anions at general places."""
    lattice = np.diag([6.5, 6.5, 25.0])
    turn = np.array([[0, -1], [1, 0]])
    if order != 4:
        lattice[1, :2] = 6.5 * np.array([-0.5, np.sqrt(3) / 2])
        turn = np.array([[0, -1], [1, -1]]) if order == 3 else np.array([[1, -1], [1, 0]])
    frac, species = [(0.0, 0.0, 0.5)], ["Cr"]
    for name, (x, y, z) in {"S": (0.13, 0.36, 1.0), "Br": (0.41, 0.07, -1.2)}.items():
        for k in range(order):
            u, v = np.linalg.matrix_power(turn, k) @ (x, y)
            frac.append((u, v, 0.5 + z / 25))
            species.append(name)
    return Monolayer.from_arrays(lattice, frac, species, {"Cr": 3.0})


def peer(bilayer: Bilayer) -> tuple[dict[str, Any], float]:
    """Return what AlterSeeK-Path answers for the layer, and its processor seconds."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        poscar = Path(folder) / "POSCAR"
        write(poscar, bilayer.atoms, format="vasp")
        moments = " ".join(f"{moment:g}" for moment in bilayer.magmoms)
        start = time.process_time()
        answer = general_k_path(
            str(poscar), moments=moments, mode_2d=True, vacuum_axis="c", symprec=1e-3, output_dir=folder
        )
        return answer, time.process_time() - start


def images(found: Classification, k: Any, operations: Iterable[Any]) -> list[Any]:
    """Return the images of k (2,) under operations with -1 adjoined, in fractions of b1 and b2."""
    blocks = [np.array(op.rotation)[:2, :2] for op in operations]
    return [sign * np.linalg.inv(block).T @ k for block in blocks for sign in (1, -1)]


def among(k: Any, others: Iterable[Any]) -> bool:
    """Whether k is one of the others modulo the reciprocal lattice."""
    differences = [np.asarray(k) - other for other in others]
    return any(np.abs(d - np.rint(d)).max() < SAME for d in differences)


def main() -> int:
    warnings.simplefilter("ignore")
    wrong = 0
    head = "| bilayer | class (ours) | altermagnet (peer) | k' is an image | k is our k* | Δ(k), Δ(k') (meV)"
    print(head + " | peer (s) | ours (s) |\n|---|---|---|---|---|---|---|---|")
    for name, bilayer in bilayers().items():
        start = time.process_time()
        found, path = classify(bilayer), generic_path(bilayer)
        own = time.process_time() - start
        answer, theirs = peer(bilayer)
        says = answer["k_prime"] is not None
        agrees = says == (found.kind == "altermagnet")
        image = same = split = ""
        if says:
            k, k_prime = np.array(answer["k"])[:2], np.array(answer["k_prime"])[:2]
            is_image = among(k_prime, images(found, k, found.flip_ops))
            agrees &= is_image
            star = np.array(path.special_points["k*"])
            everything = (*found.keep_ops, *found.flip_ops)
            same = "yes" if among(k, images(found, star, everything)) else "no"
            image = "yes" if is_image else "NO"
            splitting = tb.from_bilayer(bilayer, orbitals="s").splitting([k, k_prime])
            band = int(np.abs(splitting[0]).argmax())
            split = f"{1e3 * splitting[0, band]:+.3f}, {1e3 * splitting[1, band]:+.3f}"
        wrong += not agrees
        kind = f"{found.kind}, {found.wave}" if found.wave else found.kind
        row = (name, kind, "yes" if says else f"no: {answer['no_splitting_reason']}", image, same, split)
        print("| " + " | ".join((*row, f"{theirs:.2f}", f"{own:.3f}")) + " |", flush=True)
    print(f"\n{wrong} disagree")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
